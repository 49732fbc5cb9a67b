//! The JSON-RPC server: WebSocket and HTTP on one port, with every fault on its way.

mod author;
mod chain;
mod connection;
mod dev;
mod middleware;
mod state;
mod system;

use std::{sync::Arc, time::Duration};

use jsonrpsee::{
    RpcModule,
    server::{
        PingConfig, RandomStringIdProvider, Server, ServerConfig,
        middleware::rpc::RpcServiceBuilder, stop_channel,
    },
    types::{ErrorObjectOwned, Params},
};
use serde::de::DeserializeOwned;
use shared::Failure;
use sp_core::{Bytes, H256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use self::{connection::Connection, middleware::Watched};
use super::{
    faults::Admission,
    ledger::{Block, Ledger},
    node::Node,
};

/// What a method answers, or its error.
type Answer<T> = Result<T, ErrorObjectOwned>;

/// Largest request and answer, in bytes.
const MAX_MESSAGE: u32 = 15 * 1024 * 1024;

/// Accepts connections until it is aborted, which ends them all.
pub(super) async fn serve(listener: TcpListener, node: Arc<Node>) -> Result<(), Failure> {
    // jsonrpsee wants to hear of a stop; connections of ours end by their tokens instead.
    let (stop, _handle) = stop_channel();
    let config = ServerConfig::builder()
        .max_request_body_size(MAX_MESSAGE)
        .max_response_body_size(MAX_MESSAGE)
        .max_connections(1000)
        .set_id_provider(RandomStringIdProvider::new(16))
        .enable_ws_ping(PingConfig::new().ping_interval(Duration::from_secs(60)))
        .build();
    let watch = Arc::clone(&node);
    let builder = Server::builder()
        .set_config(config)
        .set_rpc_middleware(RpcServiceBuilder::new().layer_fn(move |inner| Watched {
            inner,
            node: Arc::clone(&watch),
        }))
        .to_service_builder();
    let service = builder.build(methods(&node), stop);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        match node.faults.admit() {
            Admission::Drop => drop(stream),
            Admission::Status(status) => {
                connections.spawn(async move { refuse(stream, status).await });
            }
            Admission::Serve(token) => {
                let service = service.clone();
                connections.spawn(async move {
                    let connection = Connection::new(stream, token);
                    if let Err(error) = jsonrpsee::server::serve(connection, service).await {
                        tracing::debug!(%error, "connection ended");
                    }
                });
            }
        }
    }
}

/// Reads a request's head and answers a status without a body.
async fn refuse(mut stream: TcpStream, status: u16) {
    let mut head = vec![0; 8192];
    let mut length = 0;
    while length < head.len() && !head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut head[length..]).await {
            Ok(read) if read > 0 => length += read,
            _ => return,
        }
    }
    let reason = match status {
        403 => "Forbidden",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Refused",
    };
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    // The client may be gone: then nobody misses the answer.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn methods(node: &Arc<Node>) -> RpcModule<Arc<Node>> {
    let mut module = RpcModule::new(Arc::clone(node));
    let registered = chain::register(&mut module)
        .and_then(|()| state::register(&mut module))
        .and_then(|()| author::register(&mut module))
        .and_then(|()| system::register(&mut module))
        .and_then(|()| dev::register(&mut module));
    if let Err(error) = registered {
        tracing::error!(%error, "an RPC method is registered twice");
    }
    let mut names: Vec<&'static str> = module.method_names().collect();
    names.push("rpc_methods");
    names.sort_unstable();
    let listed = serde_json::json!({ "methods": names });
    let answered = module.register_method("rpc_methods", move |_, _, _| listed.clone());
    if let Err(error) = answered {
        tracing::error!(%error, "an RPC method is registered twice");
    }
    module
}

/// Registers a method that answers at once: `|node, params| answer`.
fn method<R>(
    module: &mut RpcModule<Arc<Node>>,
    name: &'static str,
    answer: impl Fn(&Node, &mut Arguments<'_>) -> Answer<R> + Send + Sync + 'static,
) -> Result<(), jsonrpsee::core::RegisterMethodError>
where
    R: serde::Serialize + Clone + Send + 'static,
{
    module
        .register_method(name, move |params, node, _| {
            answer(node, &mut Arguments::new(&params))
        })
        .map(drop)
}

/// A call's arguments, in order.
struct Arguments<'a>(jsonrpsee::types::params::ParamsSequence<'a>);

impl<'a> Arguments<'a> {
    fn new(params: &'a Params<'_>) -> Self {
        Self(params.sequence())
    }

    fn next<T: DeserializeOwned>(&mut self) -> Answer<T> {
        self.0.next()
    }

    fn optional<T: DeserializeOwned>(&mut self) -> Answer<Option<T>> {
        self.0.optional_next()
    }
}

/// Finds the block that a call is about: the newest this node knows where none is named.
fn block_at<'l>(node: &Node, ledger: &'l Ledger, hash: Option<H256>) -> Answer<&'l Block> {
    let block = node.block_of(ledger, hash).ok_or_else(|| {
        let text =
            format!("Client error: UnknownBlock: Header was not found in the database: {hash:?}");
        ErrorObjectOwned::owned(4003, text, None::<()>)
    })?;
    if *sp_runtime::traits::Header::number(&block.header) < ledger.oldest_state {
        let text = format!("Client error: UnknownBlock: State already discarded for {hash:?}");
        return Err(ErrorObjectOwned::owned(4003, text, None::<()>));
    }
    Ok(block)
}

fn internal(error: impl std::fmt::Display) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(4003, format!("Client error: {error}"), None::<()>)
}

fn hex(bytes: Vec<u8>) -> Bytes {
    Bytes(bytes)
}
