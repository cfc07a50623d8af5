//! A relay that copies bytes and looks at none: what any process in between adds on this machine,
//! by being woken twice.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::cli::{Failure, say};

#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct RelayArgs {
    /// Where every connection leads to
    #[arg(long, value_name = "ADDRESS")]
    to: SocketAddr,
}

/// Relays until the process ends. Its clients are the benchmark's, which bounds their number.
pub(super) fn run(args: &RelayArgs) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    say(&format!("{}\n", listener.local_addr()?))?;
    let to = args.to;
    loop {
        let (client, _) = listener.accept()?;
        thread::spawn(move || {
            // Either side may leave; nobody needs to know.
            let _left = join(client, to);
        });
    }
}

fn join(client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (answers, to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || copy(answers, to_client));
    copy(client, server)
}

/// Copies until one of the two leaves, and lets the other know.
fn copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let mut part = [0; 16 << 10];
    loop {
        match from.read(&mut part) {
            Ok(read @ 1..) => to.write_all(&part[..read])?,
            _ => return to.shutdown(Shutdown::Both),
        }
    }
}
