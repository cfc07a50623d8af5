//! Work at load, dealt to all CPUs. The threads of the kernels do not exist yet.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// More threads than this wait for the disk, and each takes memory.
const THREADS_MAX: usize = 16;

/// Threads that loading uses.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Does `work` on every part, on as many threads as there are parts and CPUs, and returns the
/// first error; no part is begun after one.
pub(crate) fn deal<T: Send, E: Send>(
    parts: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let others = threads().min(parts.len()).saturating_sub(1);
    let (parts, failure) = (Mutex::new(parts), Mutex::new(None));
    let run = || {
        while lock(&failure).is_none() {
            let Some(part) = lock(&parts).next() else { return };
            if let Err(error) = work(part) {
                lock(&failure).get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..others {
            // Without it there are fewer, and this one does what is left.
            let _spawned = thread::Builder::new().name("weir-load".into()).spawn_scoped(scope, run);
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// A thread that panicked takes the whole load with it when the scope ends.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
