//! Metrics at `--metrics-addr`, and whether we live and the child is ready.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http_server::{
    Answer, Asked, Door, listen,
    metrics::{self, CONTENT_TYPE, Reading},
};
use shared::{Failure, status::Health};
use tokio::net::{TcpListener, TcpStream};

use crate::report::Report;

/// Whoever scrapes us: they are answered by what the loop knew when they came.
#[derive(Debug)]
pub(crate) struct Scrapes {
    listener: TcpListener,
    door: Door,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    metrics: String,
    /// Why the child is not ready.
    not_ready: Option<String>,
}

impl Scrapes {
    pub(crate) fn listen(address: SocketAddr) -> Result<Self, Failure> {
        let known = Arc::new(Mutex::new(Known::default()));
        let told = Arc::clone(&known);
        let door = Door::new(Arc::new(move |asked: Asked| {
            let answer = answer(
                &asked.path,
                &told.lock().unwrap_or_else(PoisonError::into_inner),
            );
            Box::pin(async move { answer })
        }));
        Ok(Self {
            listener: listen(address, "--metrics-addr")?,
            door,
            known,
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Answers on one connection by this report.
    pub(crate) fn serve(
        &self,
        stream: TcpStream,
        report: &Report,
    ) -> impl Future<Output = Result<(), Failure>> + use<> {
        let child = &report.child;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known {
            metrics: render(report),
            not_ready: match child.health {
                _ if child.state != "running" => Some(format!("the child is {}", child.state)),
                Some(Health::Red) => Some(child.problems.join("; ")),
                _ => None,
            },
        };
        let door = self.door.clone();
        async move {
            door.connection(stream).await;
            Ok(())
        }
    }
}

fn answer(path: &str, known: &Known) -> Answer {
    match path {
        "/live" => Answer::probe(None),
        "/ready" => Answer::probe(known.not_ready.clone()),
        // Scrapers were never asked for a path.
        _ => Answer::new(200, CONTENT_TYPE, known.metrics.clone()),
    }
}

fn render(report: &Report) -> String {
    let child = &report.child;
    let flag = |holds: bool| Some(f64::from(u8::from(holds)));
    let health = match child.health {
        Some(Health::Green) => 0.0,
        Some(Health::Yellow) => 1.0,
        Some(Health::Red) => 2.0,
        None => -1.0,
    };
    let own = report.supervisor.as_ref();
    let version = own.map_or_else(String::new, |own| own.version.clone());
    let build = vec![("version", version)];
    let update = &report.update;
    metrics::render(
        "supervisor",
        vec![
            Reading::of_each("build_info", "Version of the supervisor", [(build, 1.0)]),
            Reading::gauge(
                "child_up",
                "Whether the child runs",
                flag(child.pid.is_some()),
            ),
            Reading::gauge(
                "child_ready",
                "Whether the child is ready",
                flag(child.state == "running"),
            ),
            Reading::gauge(
                "child_uptime_seconds",
                "Age of the child",
                Some(child.uptime.unwrap_or(0) as f64),
            ),
            Reading::counter(
                "child_restarts",
                "Restarts after failures",
                Some(child.restarts as f64),
            ),
            Reading::gauge(
                "child_health",
                "0 green, 1 yellow, 2 red, -1 unknown",
                Some(health),
            ),
            Reading::gauge(
                "update_problem",
                "Whether something keeps updates away",
                flag(update.problem.is_some()),
            ),
            Reading::gauge(
                "update_quarantined",
                "Commits in quarantine",
                Some(update.quarantine.len() as f64),
            ),
            Reading::gauge(
                "update_in_progress",
                "Whether an update is under way",
                flag(update.phase != "idle"),
            ),
            Reading::gauge(
                "uptime_seconds",
                "Age of the supervisor",
                own.map(|own| own.uptime as f64),
            ),
        ],
    )
}
