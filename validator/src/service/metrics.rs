//! The metrics task: answers scrapes, and asks whether we live and are ready.

use std::sync::Arc;

use http_server::{Answer, Asked, Door, metrics::CONTENT_TYPE};
use shared::{Failure, status::Health};
use tokio::net::TcpListener;

use super::admin::EVERY;
use report::{board::Board, meters::Meters, metrics};

/// Serves `/metrics`, `/live` and `/ready` for as long as it is polled.
pub(super) async fn serve(
    listener: TcpListener,
    board: Board,
    version: String,
    meters: Meters,
) -> Result<(), Failure> {
    let door = Door::new(Arc::new(move |asked: Asked| {
        let answer = answer(&asked.path, &board, &version, &meters);
        Box::pin(async move { answer })
    }));
    door.serve(listener).await
}

fn answer(path: &str, board: &Board, version: &str, meters: &Meters) -> Answer {
    let status = || board.status(version, EVERY);
    match path {
        "/metrics" => Answer::new(200, CONTENT_TYPE, metrics::render(&status(), meters)),
        // Whoever answers lives: a hang of the runtime answers nothing.
        "/live" => Answer::probe(None),
        "/ready" => {
            let status = status();
            Answer::probe(match status.details.start.ready_at {
                None => Some(format!("starting: {}", status.phase)),
                Some(_) if status.health == Health::Red => Some(status.problems.join("; ")),
                Some(_) => None,
            })
        }
        _ => Answer::text(404, "there are /metrics, /live and /ready\n"),
    }
}
