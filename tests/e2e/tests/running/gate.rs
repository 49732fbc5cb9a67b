//! A gate before a server: barred, it refuses connections and cuts those that are open.

use std::net::{Ipv4Addr, SocketAddr};

use futures::stream::{FuturesUnordered, StreamExt};
use shared::task::TaskSet;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

pub(crate) struct Gate {
    address: SocketAddr,
    server: SocketAddr,
    tasks: TaskSet,
}

impl Gate {
    /// Opens a gate to a server, on a port of its own.
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let mut gate = Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            server,
            tasks: TaskSet::new(),
        };
        gate.open().await;
        gate
    }

    /// Returns the base URL, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
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

    pub(crate) async fn bar(&mut self) {
        self.tasks.abort_all();
        while self.tasks.next().await.is_some() {}
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr) {
    let mut server = TcpStream::connect(server).await.unwrap();
    // Either side may hang up at any time.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
