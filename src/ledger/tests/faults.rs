//! A disk that fails: metered clouds are not used, everything else goes on.

use std::fs;

use super::*;

fn stayed() -> Entry {
    Entry { reason: "budget_spent".into(), ..Entry::new(Outcome::Kept) }
}

/// Where no folder can be made, whoever asks: even root cannot create one inside a file.
fn unwritable(scene: &Scene) {
    fs::write(scene.folder.path().join("state"), "a file").unwrap();
}

#[test]
fn a_folder_that_cannot_be_written_stops_metered_requests_and_no_others() {
    let scene = Scene::new();
    unwritable(&scene);
    let options = scene.options();
    let telemetry = options.telemetry.clone();
    let ledger = Ledger::open(options, Terms::default()).unwrap();
    let account = ledger.account(&"team".into(), &"azure".into());
    assert!(!ledger.is_writable());
    let refused = ledger.reserve(&account, nano(1)).err();
    assert_eq!(refused, Some(Refused::Unwritable), "though no budget bounds it");
    let free = ledger.reserve(&account, Money::ZERO).expect("it costs nothing");
    free.settle(answered(Money::ZERO));
    // Notes wait for the disk as far as there is room, and are counted beyond it.
    for _ in 0..ENTRIES_MAX + 9 {
        ledger.note(&account, stayed());
    }
    assert_eq!(ledger.reserve(&account, Money::ZERO).err(), Some(Refused::Backlog));
    let metrics = telemetry.render();
    assert!(metrics.contains("weir_ledger_writable 0"), "{metrics}");
    assert!(metrics.contains("weir_ledger_unwritten_total 10"), "{metrics}");
    assert_eq!(ledger.flush(), Err(Unwritten));

    fs::remove_file(scene.folder.path().join("state")).unwrap();
    assert_eq!(ledger.flush(), Ok(()), "it recovers without a restart");
    ledger.reserve(&account, nano(1)).expect("the disk is back").settle(answered(nano(1)));
    ledger.close();
    assert_eq!(scene.verify(), ENTRIES_MAX as u64 + 1);
    let metrics = telemetry.render();
    assert!(metrics.contains(&format!("weir_ledger_rows_total {}", ENTRIES_MAX + 1)), "{metrics}");
}

#[test]
fn a_full_disk_keeps_every_row_for_later_and_grants_nothing() {
    let scene = Scene::new();
    let mut weir = scene.by_hand(terms(vec![budget(None, None, Period::Day, dollars(10))]));
    assert!(weir.write());
    let account = weir.ledger.account(&"team".into(), &"azure".into());
    weir.writer.books().unwrap().limit_pages(1);
    let mut settled = 0;
    while weir.ledger.is_writable() {
        let reservation = weir.ledger.reserve(&account, nano(2)).unwrap();
        reservation.settle(answered(nano(1)));
        settled += 1;
        weir.write();
        assert!(settled < 1_000, "the disk is never full");
    }
    let open = account.purses()[0].available(NOON.div_euclid(DAY));
    assert_eq!(weir.ledger.reserve(&account, nano(1)).err(), Some(Refused::Unwritable));
    for _ in 0..3 {
        weir.ledger.note(&account, stayed());
        assert!(!weir.write(), "it is too early to try again");
    }
    assert_eq!(account.purses()[0].available(NOON.div_euclid(DAY)), open);
    assert!(weir.write_now());
    assert!(weir.ledger.is_writable());
    weir.close();
    assert_eq!(scene.verify(), settled + 3, "each row once");
    assert_eq!(scene.budgets()[0].1, nano(settled));
}

#[test]
fn a_ledger_serves_one_weir_at_a_time() {
    let scene = Scene::new();
    let first = scene.open(Terms::default());
    let second = scene.open(Terms::default());
    let account = |ledger: &Ledger| ledger.account(&"team".into(), &"azure".into());
    assert!(first.reserve(&account(&first), nano(1)).is_ok());
    assert_eq!(second.reserve(&account(&second), nano(1)).err(), Some(Refused::Unwritable));
    first.close();
    assert_eq!(second.flush(), Ok(()));
    assert!(second.reserve(&account(&second), nano(1)).is_ok());
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    let text = "certainly no database, and longer than the header of one".repeat(9);
    let foreign = {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.db");
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE mine (x)").unwrap();
        drop(other);
        fs::read(path).unwrap()
    };
    for content in [text.into_bytes(), foreign] {
        let scene = Scene::new();
        fs::create_dir(scene.folder.path().join("state")).unwrap();
        fs::write(scene.path(), &content).unwrap();
        let ledger = scene.open(Terms::default());
        assert!(!ledger.is_writable());
        ledger.close();
        assert!(fs::read(scene.path()).unwrap() == content);
    }
}

/// Whoever swaps the file under a weir that runs takes its memory of what was spent.
#[test]
fn a_ledger_that_was_replaced_grants_nothing() {
    let scene = Scene::new();
    let mut weir = scene.by_hand(terms(vec![budget(None, None, Period::Day, dollars(10))]));
    assert!(weir.write());
    let account = weir.ledger.account(&"team".into(), &"azure".into());
    weir.writer.books().unwrap().refuse();
    weir.ledger.note(&account, stayed());
    assert!(!weir.write());
    fs::remove_dir_all(scene.folder.path().join("state")).unwrap();
    let all = account.purses()[0].available(NOON.div_euclid(DAY));
    weir.ledger.0.shared.writable.store(true, Ordering::SeqCst);
    drop(weir.ledger.reserve(&account, all).unwrap());
    assert!(!weir.write_now(), "there is nothing left to grant from");
    assert!(!weir.ledger.is_writable());
}

#[test]
fn there_is_room_for_every_reservation_that_is_out() {
    let scene = Scene::new();
    let ledger = scene.open(Terms::default());
    let account = ledger.account(&"team".into(), &"azure".into());
    let out: Vec<_> =
        (0..ENTRIES_MAX).map(|_| ledger.reserve(&account, nano(1)).unwrap()).collect();
    assert_eq!(ledger.reserve(&account, nano(1)).err(), Some(Refused::Backlog));
    drop(out);
    ledger.flush().unwrap();
    assert!(ledger.reserve(&account, nano(1)).is_ok());
    ledger.close();
    assert_eq!(scene.verify(), ENTRIES_MAX as u64 + 1);
}

#[test]
fn after_the_end_nothing_is_reserved_and_rows_are_counted() {
    let scene = Scene::new();
    let options = scene.options();
    let telemetry = options.telemetry.clone();
    let ledger = Ledger::open(options, Terms::default()).unwrap();
    let account = ledger.account(&"team".into(), &"azure".into());
    let late = ledger.reserve(&account, nano(1)).unwrap();
    ledger.close();
    assert_eq!(ledger.reserve(&account, nano(1)).err(), Some(Refused::Unwritable));
    late.settle(answered(nano(1)));
    assert_eq!(ledger.flush(), Err(Unwritten));
    assert!(telemetry.render().contains("weir_ledger_unwritten_total 1"));
}
