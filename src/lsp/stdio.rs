//! Standard input and output as queues of messages, each with a thread of its own: both block.

use std::io::{self, BufReader};
use std::thread;
use std::time::Duration;

use lsp_server::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::frame::{self, Frame};

/// Messages that were read and wait to be handled.
const INBOX_MAX: usize = 64;
/// Answers that wait to be read by the editor.
const OUTBOX_MAX: usize = 256;
/// An editor that has gone reads nothing more.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The error is the last there is.
pub(super) type Inbox = mpsc::Receiver<io::Result<Message>>;

pub(super) struct Outbox {
    pub(super) sender: mpsc::Sender<Message>,
    written: oneshot::Receiver<()>,
}

impl Outbox {
    /// Waits until all has been written. No other sender may be left.
    pub(super) async fn flushed(self) {
        drop(self.sender);
        let _in_time = timeout(FLUSH_MAX, self.written).await;
    }
}

pub(super) fn open() -> (Inbox, Outbox) {
    let (sender, answers) = mpsc::channel(OUTBOX_MAX);
    let (done, written) = oneshot::channel();
    thread::spawn(move || {
        write(answers);
        // Nobody waits where the editor has gone.
        let _ = done.send(());
    });
    let (messages, inbox) = mpsc::channel(INBOX_MAX);
    thread::spawn(move || read(&messages));
    (inbox, Outbox { sender, written })
}

fn read(to: &mpsc::Sender<io::Result<Message>>) {
    let mut from = BufReader::new(io::stdin());
    loop {
        let message = match frame::read(&mut from) {
            Ok(None) => return,
            Ok(Some(Frame::Message(message))) => Ok(message),
            Ok(Some(Frame::Malformed)) => {
                // In one piece between two answers: standard output is locked by each.
                let _written = frame::write_malformed(&mut io::stdout().lock());
                continue;
            }
            Err(error) => Err(error),
        };
        let is_last = message.is_err();
        if to.blocking_send(message).is_err() || is_last {
            return;
        }
    }
}

fn write(mut answers: mpsc::Receiver<Message>) {
    while let Some(answer) = answers.blocking_recv() {
        if answer.write(&mut io::stdout().lock()).is_err() {
            return;
        }
    }
}
