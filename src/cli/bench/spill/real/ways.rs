//! Who decides, over a real engine and real sockets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::super::scene::{OBJECTIVE, QUALIFIES};
use super::load::Answered;
use crate::cloud::Provider;
use crate::completion::{Backend, CompletionRequest, CompletionStream, Event, Route};
use crate::dispatch::Dispatcher;
use crate::engine::EngineHandle;

/// Where a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Local,
    /// The row's index.
    Cloud(usize),
    Shed,
}

pub(super) enum Way {
    Weir(Arc<Dispatcher<EngineHandle, Provider>>),
    Local,
    Depth(Depth),
    Cooldown(Cooldown),
}

/// Sends away whatever meets a queue of so many, as it was when it was last looked at.
pub(super) struct Depth {
    most: usize,
    seen_every: Duration,
    /// When, and whether requests leave since.
    seen: Mutex<Option<(Instant, bool)>>,
}

/// Sends everything away for a time once the box was late, or refused.
pub(super) struct Cooldown {
    pause: Duration,
    until: Mutex<Option<Instant>>,
}

/// What a request needs to be asked.
pub(super) struct Asking {
    pub(super) engine: EngineHandle,
    pub(super) providers: Vec<Arc<Provider>>,
    pub(super) way: Way,
}

impl Depth {
    pub(super) fn new(most: usize, seen_every: Duration) -> Self {
        Self { most, seen_every, seen: Mutex::new(None) }
    }

    fn leaves(&self, engine: &EngineHandle) -> bool {
        let mut seen = lock(&self.seen);
        match *seen {
            Some((at, leaves)) if at.elapsed() < self.seen_every => leaves,
            _ => {
                let leaves = engine.saturation().waiting() >= self.most;
                *seen = Some((Instant::now(), leaves));
                leaves
            }
        }
    }
}

impl Cooldown {
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, until: Mutex::new(None) }
    }

    fn leaves(&self) -> bool {
        lock(&self.until).is_some_and(|until| Instant::now() < until)
    }

    fn failed(&self) {
        if !self.leaves() {
            *lock(&self.until) = Some(Instant::now() + self.pause);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Asking {
    /// Asks, and reads the answer to its end. Time runs from when the request was due.
    pub(super) async fn ask(&self, request: Arc<CompletionRequest>, due: Instant) -> Answered {
        let leaves = match &self.way {
            Way::Weir(dispatcher) => return by_weir(dispatcher, request, due).await,
            Way::Local => false,
            Way::Depth(depth) => depth.leaves(&self.engine),
            Way::Cooldown(cooldown) => cooldown.leaves(),
        };
        if !leaves {
            if let Ok(stream) = self.engine.complete(request.clone()).await {
                let answered = read(stream, Place::Local, due).await;
                if answered.ttft.is_none_or(|ttft| ttft > OBJECTIVE) {
                    self.failed();
                }
                return answered;
            }
            self.failed();
            if matches!(self.way, Way::Local) {
                return Answered::nothing(Place::Shed);
            }
        }
        match self.providers[QUALIFIES].complete(request).await {
            Ok(stream) => read(stream, Place::Cloud(QUALIFIES), due).await,
            Err(_) => Answered::nothing(Place::Shed),
        }
    }

    fn failed(&self) {
        if let Way::Cooldown(cooldown) = &self.way {
            cooldown.failed();
        }
    }
}

async fn by_weir(
    dispatcher: &Arc<Dispatcher<EngineHandle, Provider>>,
    request: Arc<CompletionRequest>,
    due: Instant,
) -> Answered {
    let Ok(placed) = dispatcher.dispatch(request).await else {
        return Answered::nothing(Place::Shed);
    };
    let place = match &placed.route {
        Route::Cloud(name) => {
            let row = super::CLOUDS.iter().position(|(row, ..)| *row == &**name);
            Place::Cloud(row.expect("a row of ours"))
        }
        _ => Place::Local,
    };
    let predicted = placed.predicted_ttft;
    Answered { predicted, ..read(placed.stream, place, due).await }
}

async fn read(mut stream: CompletionStream, place: Place, due: Instant) -> Answered {
    let mut answered = Answered::nothing(place);
    while let Some(event) = stream.events.next().await {
        match event {
            Event::Chunk(_) | Event::Finished { .. } => {
                answered.ttft.get_or_insert_with(|| due.elapsed());
            }
            Event::Usage(usage) => answered.usage = Some(usage),
            Event::Prompt { .. } | Event::Failed(_) => {}
        }
    }
    answered
}
