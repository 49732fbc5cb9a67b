//! HTTP servers on loopback: bound at once, observed, with faults, stopped on drop.

pub mod fault;
pub mod traffic;

use std::net::{Ipv4Addr, SocketAddr};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use shared::{Exit, Failure, task::TaskSet};
use tokio::net::TcpListener;

pub use fault::{Fault, Faults, Rule};
pub use traffic::{Request, Traffic};

/// A running server. Dropping it closes the port.
#[derive(Debug)]
pub struct Server {
    /// What it is bound to.
    pub address: SocketAddr,
    pub faults: Faults,
    pub traffic: Traffic,
    _tasks: TaskSet,
}

/// A port that is ours but does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Takes a port of 127.0.0.1; 0 takes any free one. `what` names the service in the error.
    pub async fn take(port: u16, what: &str) -> Result<Self, Failure> {
        let asked = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let bind = async {
            let listener = TcpListener::bind(asked).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind.await.map_err(|error: std::io::Error| {
            Failure::of(Exit::Denied, &error)
                .because(format_args!("{what} could not listen on {asked}"))
                .hint("stop what listens there, or choose other ports with --base-port")
        })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the base URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts to answer with `router`, plus `/dev/faults` and `/dev/requests`.
    pub fn serve(self, name: &'static str, router: Router, faults: Faults) -> Server {
        let traffic = Traffic::default();
        let observed = router
            .layer(from_fn_with_state(faults.clone(), fault::inject))
            .layer(from_fn_with_state(traffic.clone(), traffic::record));
        let router = observed.merge(dev_routes(faults.clone(), traffic.clone()));
        let mut tasks = TaskSet::new();
        let listener = self.listener;
        tasks.spawn(name, async move {
            axum::serve(listener, router)
                .await
                .map_err(|error| Failure::of(Exit::Machine, &error).because(name))
        });
        Server {
            address: self.address,
            faults,
            traffic,
            _tasks: tasks,
        }
    }
}

impl Server {
    /// Returns the base URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn dev_routes(faults: Faults, traffic: Traffic) -> Router {
    let set = async |State(faults): State<Faults>, Json(rules): Json<Vec<Rule>>| {
        faults.set(rules);
        StatusCode::NO_CONTENT
    };
    let add = async |State(faults): State<Faults>, Json(rule): Json<Rule>| {
        faults.add(rule);
        StatusCode::NO_CONTENT
    };
    let clear = async |State(faults): State<Faults>| {
        faults.clear();
        StatusCode::NO_CONTENT
    };
    let list = async |State(faults): State<Faults>| Json(faults.rules());
    let requests = async |State(traffic): State<Traffic>| Json(traffic.requests());
    let forget = async |State(traffic): State<Traffic>| {
        traffic.clear();
        StatusCode::NO_CONTENT
    };
    let faults = Router::new()
        .route("/dev/faults", get(list).post(add).put(set).delete(clear))
        .with_state(faults);
    Router::new()
        .route("/dev/requests", get(requests).delete(forget))
        .with_state(traffic)
        .merge(faults)
}

/// Answers with a status and a JSON body `{"error": ...}`.
pub(crate) fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(serde_json::json!({ "error": message }))).into_response()
}
