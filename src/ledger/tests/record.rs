//! What is written down, and that nobody changes it unseen.

use std::path::Path;

use rusqlite::{Connection, params};

use super::*;

/// A ledger of some rows and budgets, closed.
fn written() -> Scene {
    let scene = Scene::new();
    let table = vec![
        budget(Some("team"), None, Period::Month, dollars(9)),
        budget(None, Some("azure"), Period::Day, dollars(9)),
    ];
    let ledger = scene.open(terms(table));
    let account = ledger.account(&"team".into(), &"azure".into());
    for index in 0..6 {
        let worst = nano(index + 1_000);
        ledger.reserve(&account, worst).unwrap().settle(answered(nano(index)));
        scene.clock.advance(1_000);
    }
    drop(ledger.reserve(&account, nano(77)).unwrap());
    let nowhere = ledger.account(&"team".into(), &"".into());
    ledger.note(&nowhere, Entry { reason: "budget_spent".into(), ..Entry::new(Outcome::Kept) });
    ledger.close();
    assert_eq!(scene.verify(), 8);
    scene
}

fn with<T>(path: &Path, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
    work(&Connection::open(path).unwrap()).unwrap()
}

#[test]
fn a_change_to_any_column_of_any_row_is_found() {
    let scene = written();
    let columns: Vec<String> = with(&scene.path(), |connection| {
        let mut statement = connection.prepare("SELECT name FROM pragma_table_info('rows')")?;
        statement.query_map([], |row| row.get(0))?.collect()
    });
    assert_eq!(columns.len(), 23, "{columns:?}");
    for seq in 1..=8_i64 {
        for column in columns.iter().filter(|column| *column != "seq") {
            // One more, one letter more, something where there was nothing.
            let changed = match column.as_str() {
                "hash" => "zeroblob(32)".to_owned(),
                "tenant" | "cloud" | "model" | "reason" | "rule" | "config" | "outcome" => {
                    format!("{column} || 'x'")
                }
                "region" | "tier" | "attested_by" => format!("coalesce({column} || 'x', 'x')"),
                _ => format!("coalesce({column} + 1, 0)"),
            };
            let before: rusqlite::types::Value = with(&scene.path(), |connection| {
                let select = format!("SELECT {column} FROM rows WHERE seq = ?1");
                let before = connection.query_row(&select, [seq], |row| row.get(0))?;
                let update = format!("UPDATE rows SET {column} = {changed} WHERE seq = ?1");
                assert_eq!(connection.execute(&update, [seq])?, 1);
                Ok(before)
            });
            let verdict = scene.verdict();
            assert_eq!(verdict.wrong, Some(audit::Wrong::Row(seq)), "{column} of {seq}");
            assert_eq!(verdict.rows, seq.unsigned_abs() - 1, "those before it are right");
            with(&scene.path(), |connection| {
                let restore = format!("UPDATE rows SET {column} = ?2 WHERE seq = ?1");
                connection.execute(&restore, params![seq, before])
            });
        }
        assert_eq!(scene.verdict().wrong, None);
    }
}

#[test]
fn rows_that_are_taken_added_or_moved_are_found() {
    use audit::Wrong;
    let cases = [
        ("DELETE FROM rows WHERE seq = 1", Wrong::Missing(1)),
        ("DELETE FROM rows WHERE seq = 4", Wrong::Missing(4)),
        ("DELETE FROM rows WHERE seq = 8", Wrong::End { is: 7, should: 8 }),
        ("DELETE FROM rows", Wrong::End { is: 0, should: 8 }),
        ("UPDATE rows SET seq = 0 WHERE seq = 1", Wrong::Row(0)),
        (
            "UPDATE rows SET seq = 9 WHERE seq = 2;
             UPDATE rows SET seq = 2 WHERE seq = 3;
             UPDATE rows SET seq = 3 WHERE seq = 9",
            Wrong::Row(2),
        ),
        (
            "INSERT INTO rows SELECT 9, time_ms, day, month, tenant, cloud, model, region, tier,
                 reason, rule, attested_by, config, prompt_tokens, cached_tokens,
                 completion_tokens, ttft_predicted_us, ttft_us, worst_nusd, cost_nusd, estimated,
                 outcome, hash FROM rows WHERE seq = 8",
            Wrong::Row(9),
        ),
        ("UPDATE budgets SET spent = 0", Wrong::Budget("*/azure in 2026-11-21".into())),
        (
            "UPDATE budgets SET granted = 1 WHERE tenant = 'team'",
            Wrong::Budget("team/* in 2026-11".into()),
        ),
    ];
    for (sql, wrong) in cases {
        let scene = written();
        with(&scene.path(), |connection| connection.execute_batch(sql));
        assert_eq!(scene.verdict().wrong, Some(wrong), "{sql}");
    }
}

/// Whoever cuts off the end and repairs the rest leaves a whole ledger, but not the hash that was
/// kept elsewhere.
#[test]
fn a_hash_that_was_kept_finds_an_end_that_was_cut_off() {
    let scene = written();
    let kept = scene.verdict().head;
    let verify = |kept| audit::verify(&scene.path(), kept).unwrap().wrong;
    assert_eq!(verify(Some((8, &kept))), None);
    assert_eq!(verify(Some((7, &kept))), Some(audit::Wrong::Kept(7)));
    with(&scene.path(), |connection| {
        connection.execute_batch(
            "DELETE FROM rows WHERE seq = 8;
             UPDATE head SET seq = 7, hash = (SELECT hash FROM rows WHERE seq = 7)",
        )
    });
    assert_eq!(verify(None), None);
    assert_eq!(verify(Some((8, &kept))), Some(audit::Wrong::Missing(8)));
}

#[test]
fn the_chain_goes_on_after_a_restart() {
    let scene = written();
    let ledger = scene.open(Terms::default());
    let account = ledger.account(&"team".into(), &"azure".into());
    ledger.reserve(&account, nano(5)).unwrap().settle(answered(nano(5)));
    ledger.close();
    assert_eq!(scene.verify(), 9);
}

#[test]
fn an_hour_of_rent_is_booked_once_whoever_restarts() {
    let scene = Scene::new();
    let rents = vec![("rack".into(), dollars(4)), ("spare".into(), dollars(1))];
    let terms =
        || Terms { rents: rents.clone(), ..terms(vec![budget(None, None, Period::Day, nano(1))]) };
    for _ in 0..3 {
        scene.open(terms()).close();
        scene.clock.advance(20 * MINUTE);
    }
    let ledger = scene.open(terms());
    ledger.flush().unwrap();
    scene.clock.advance(3 * 60 * MINUTE);
    ledger.flush().unwrap();
    ledger.close();
    scene.verify();
    let usage = scene.usage();
    let lines: Vec<_> =
        usage.iter().map(|line| (&*line.cloud, line.requests, line.cost_usd)).collect();
    // Noon, one o'clock and four o'clock: hours in which weir did not run are not booked.
    assert_eq!(lines, [("rack", 0, dollars(12)), ("spare", 0, dollars(3))]);
    assert_eq!(scene.budgets()[0].1, Money::ZERO, "rent is no request's, so no budget's");
}

#[test]
fn the_csv_tells_all_of_it() {
    let scene = written();
    let mut out = Vec::new();
    audit::csv(&scene.path(), audit::Filter::default(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 9);
    assert_eq!(
        lines[0],
        "seq,time,day,month,tenant,cloud,model,region,tier,reason,rule,attested_by,config,\
         prompt_tokens,cached_tokens,completion_tokens,ttft_predicted_us,ttft_us,worst_usd,\
         cost_usd,estimated,outcome,hash"
    );
    let (row, hash) = lines[2].rsplit_once(',').unwrap();
    assert_eq!(
        row,
        "2,2026-11-21T12:00:01.000Z,2026-11-21,2026-11,team,azure,coder,eu-west,,saturated,\
         cloud-allowed,,0123456789abcdef,100,20,7,,,0.000001001,0.000000001,0,answered"
    );
    assert_eq!(hash.len(), 64);
    assert!(lines[7].contains(",0.000000077,0.000000077,1,dropped,"), "{}", lines[7]);
    assert!(lines[8].contains(",team,,,,,budget_spent,"), "{}", lines[8]);
    assert!(lines[8].ends_with(&scene.verdict().head), "{}", lines[8]);
}

#[test]
fn usage_is_per_day_tenant_and_cloud_and_can_be_narrowed() {
    let scene = written();
    let all = scene.usage();
    let [kept, sent] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&*kept.cloud, kept.requests, kept.sent), ("", 1, 0));
    assert_eq!((&*sent.cloud, sent.requests, sent.sent), ("azure", 7, 7));
    assert_eq!((sent.prompt_tokens, sent.cached_tokens, sent.completion_tokens), (600, 120, 42));
    assert_eq!(sent.cost_usd, nano(15 + 77));
    assert_eq!(sent.estimated_usd, nano(77));
    let json = serde_json::to_value(sent).unwrap();
    assert_eq!(json["cost_usd"], "0.000000092");
    let filtered = |since, tenant| {
        let since = audit::day(since);
        audit::usage(&scene.path(), audit::Filter { since, tenant }).unwrap().len()
    };
    assert_eq!(filtered("2026-11-21", None), 2);
    assert_eq!(filtered("2026-11-22", None), 0);
    assert_eq!(filtered("2026-01-01", Some("team")), 2);
    assert_eq!(filtered("2026-01-01", Some("other")), 0);
}

#[test]
fn it_can_be_read_while_it_is_written() {
    let scene = Scene::new();
    let ledger = scene.open(Terms::default());
    let account = ledger.account(&"team".into(), &"azure".into());
    for rows in 1..=20 {
        ledger.reserve(&account, nano(5)).unwrap().settle(answered(nano(5)));
        ledger.flush().unwrap();
        assert_eq!(scene.verify(), rows);
    }
}

#[test]
fn a_ledger_that_is_not_there_is_an_error() {
    let scene = Scene::new();
    let error = audit::verify(&scene.path(), None).unwrap_err();
    assert!(error.to_string().contains("ledger.db"), "{error}");
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let scene = written();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&scene.path()), 0o600);
    assert_eq!(mode(scene.path().parent().unwrap()), 0o700);
}

/// Before 3.51.3 a checkpoint beside a commit could corrupt a write-ahead log.
#[test]
fn sqlite_is_new_enough() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}
