//! Somebody who types, with a client beside the text.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::client::Client;
use super::counts::Counts;
use super::desk::Desk;
use super::edits::{Act, Session};
use super::flight::News;
use super::policies::Policy;
use super::server::Server;
use super::sources::Source;

/// News that wait to be heard; who has more to tell waits.
const NEWS_MAX: usize = 64;
/// Developers begin within so long of one another.
const START: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(super) struct Developer<'a> {
    pub(super) number: u64,
    pub(super) seed: u64,
    pub(super) policy: &'static Policy,
    pub(super) files: &'a [Source],
    pub(super) server: &'a Server,
}

impl Developer<'_> {
    /// Works for so long.
    pub(super) async fn work(self, time: Duration) -> Counts {
        let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.number);
        let (news, mut arriving) = mpsc::channel(NEWS_MAX);
        let session = format!("developer-{seed:016x}");
        let mut client = Client::new(self.policy, self.server, session, news);
        let ends = Instant::now() + time;
        let mut clock =
            Instant::now() + START.min(time / 4).mul_f64(fastrand::Rng::with_seed(seed).f64());
        for passage in Session::new(self.files, seed) {
            let mut desk = Desk::new(&self.files[passage.file], passage.from, passage.to);
            for beat in &passage.beats {
                if desk.is_done() {
                    break;
                }
                clock += beat.wait;
                if !pass(&mut client, &mut arriving, &desk, clock.min(ends)).await || clock > ends {
                    return client.counts;
                }
                act(&mut client, &mut desk, beat.act, clock);
            }
            client.leave(&desk);
        }
        client.counts
    }
}

/// Lets time go by, in which the client does its work; false: nobody can tell it anything more.
async fn pass(
    client: &mut Client<'_>,
    arriving: &mut mpsc::Receiver<News>,
    desk: &Desk<'_>,
    until: Instant,
) -> bool {
    loop {
        let wake = client.wakes().map_or(until, |at| at.min(until));
        tokio::select! {
            biased;
            news = arriving.recv() => match news {
                Some(news) => client.hear(news, desk),
                None => return false,
            },
            () = sleep_until(wake) => {
                client.wake(desk);
                if Instant::now() >= until {
                    return true;
                }
            }
        }
    }
}

fn act(client: &mut Client<'_>, desk: &mut Desk<'_>, act: Act, now: Instant) {
    if let Act::Look { takes } = act {
        if let Some(taken) = client.take(desk.rest(), takes) {
            desk.insert(&taken.text);
            client.took(&taken, now);
        }
        return;
    }
    client.counts.keys += 1;
    let change = desk.act(act);
    client.changed(&change, now);
}
