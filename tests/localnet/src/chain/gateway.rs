//! A gateway: one address, behind which now one chain answers and now another.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use shared::{Failure, task::TaskSet};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::Chain;

/// Passes connections on to a chain, as a provider of nodes does. Dropping it ends them.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    behind: Arc<watch::Sender<SocketAddr>>,
    _tasks: TaskSet,
}

impl Gateway {
    /// Opens a gateway to a chain.
    ///
    /// # Errors
    /// There is no loopback.
    pub async fn open(chain: &Chain) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let behind = Arc::new(watch::Sender::new(chain.address));
        let mut tasks = TaskSet::new();
        tasks.spawn("gateway", serve(listener, Arc::clone(&behind)));
        Ok(Self {
            address,
            behind,
            _tasks: tasks,
        })
    }

    /// Returns where clients connect: `ws://127.0.0.1:PORT`.
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Ends all connections; new ones lead to this chain.
    pub fn lead_to(&self, chain: &Chain) {
        self.behind.send_replace(chain.address);
    }
}

async fn serve(
    listener: TcpListener,
    behind: Arc<watch::Sender<SocketAddr>>,
) -> Result<(), Failure> {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((mut stream, _)) = accepted else {
            continue;
        };
        let mut moved = behind.subscribe();
        connections.spawn(async move {
            let address = *moved.borrow_and_update();
            let Ok(mut upstream) = TcpStream::connect(address).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut stream, &mut upstream) => {}
                _ = moved.changed() => {}
            }
        });
    }
}
