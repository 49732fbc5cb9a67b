//! Metrics as Prometheus text, at `--metrics-addr`.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use shared::{Exit, Failure, status::Health};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::report::Report;

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let open = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    open().map_err(|error| {
        Failure::new(
            Exit::Config,
            format!("could not serve metrics at {address}"),
        )
        .because(&error)
        .hint("choose another --metrics-addr")
    })
}

pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: f64| {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"
        );
    };
    let child = &report.child;
    let up = f64::from(u8::from(child.pid.is_some()));
    gauge("supervisor_child_up", "Whether the child runs.", up);
    let ready = f64::from(u8::from(child.state == "running"));
    gauge(
        "supervisor_child_ready",
        "Whether the child is ready.",
        ready,
    );
    let uptime = child.uptime.unwrap_or(0) as f64;
    gauge(
        "supervisor_child_uptime_seconds",
        "Age of the child.",
        uptime,
    );
    let restarts = child.restarts as f64;
    gauge(
        "supervisor_child_restarts",
        "Restarts after failures.",
        restarts,
    );
    let health = match child.health {
        Some(Health::Green) => 0.0,
        Some(Health::Yellow) => 1.0,
        Some(Health::Red) => 2.0,
        None => -1.0,
    };
    gauge(
        "supervisor_child_health",
        "0 green, 1 yellow, 2 red, -1 unknown.",
        health,
    );
    let problem = f64::from(u8::from(report.update.problem.is_some()));
    gauge(
        "supervisor_update_problem",
        "Whether something keeps updates away.",
        problem,
    );
    let quarantine = report.update.quarantine.len() as f64;
    gauge(
        "supervisor_update_quarantined",
        "Commits in quarantine.",
        quarantine,
    );
    let busy = f64::from(u8::from(report.update.phase != "idle"));
    gauge(
        "supervisor_update_in_progress",
        "Whether an update is under way.",
        busy,
    );
    let uptime = report.supervisor.as_ref().map_or(0, |own| own.uptime) as f64;
    gauge(
        "supervisor_uptime_seconds",
        "Age of the supervisor.",
        uptime,
    );
    text
}

/// Answers one scrape, whatever was asked for.
pub(crate) async fn serve(mut stream: TcpStream, text: String) -> Result<(), Failure> {
    let answer = async {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await?;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
        let head = format!(
            "{head}Content-Length: {}\r\nConnection: close\r\n\r\n",
            text.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, answer).await {
        tracing::debug!(%error, "a scrape failed");
    }
    Ok(())
}
