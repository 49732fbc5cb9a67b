//! A gate before a server: barred, it refuses connections and cuts those that are open.

use std::net::{Ipv4Addr, SocketAddr};

use futures::stream::{FuturesUnordered, StreamExt};
use shared::task::TaskSet;
use tokio::{
    io::copy_bidirectional,
    net::{TcpSocket, TcpStream},
};

pub(crate) struct Gate {
    address: SocketAddr,
    server: SocketAddr,
    /// Keeps the port while the gate is barred.
    barred: Option<TcpSocket>,
    tasks: TaskSet,
}

impl Gate {
    /// Opens a gate to a server, on a port of its own.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let socket = bound((Ipv4Addr::LOCALHOST, 0).into());
        let mut gate = Self {
            address: socket.local_addr().unwrap(),
            server,
            barred: Some(socket),
            tasks: TaskSet::new(),
        };
        gate.open();
        gate
    }

    /// Returns the base URL, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address of a WebSocket.
    pub(crate) fn ws_url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Lets everybody through again.
    pub(crate) fn open(&mut self) {
        let listener = self.barred.take().unwrap().listen(64).unwrap();
        let server = self.server;
        self.tasks.spawn("gate", async move {
            let mut connections = FuturesUnordered::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (client, _) = accepted.unwrap();
                        connections.push(pass(client, server));
                    }
                    Some(()) = connections.next() => {}
                }
            }
        });
    }

    /// Lets nobody through.
    pub(crate) async fn bar(&mut self) {
        self.tasks.abort_all();
        while self.tasks.next().await.is_some() {}
        self.barred = Some(bound(self.address));
    }
}

/// Returns a socket that refuses connections until it listens.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn pass(mut client: TcpStream, server: SocketAddr) {
    let mut server = TcpStream::connect(server).await.unwrap();
    // Either side may hang up at any time.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
