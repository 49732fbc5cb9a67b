//! The dashboard: the pages at an address, for people, read only.
//!
//! Who may look: by default whoever reaches the address, so it is one of this machine unless told otherwise; with a
//! token, who has it. On an address of this machine the header `Host` must name this machine, too: otherwise a page
//! of a stranger could have the operator's own browser read the dashboard (DNS rebinding).

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http_server::{Answer, Asked, Door, Messages};
use page::{Form, POLICY, Route, SCRIPT, STYLE};
use sha2::{Digest as _, Sha256};
use shared::Failure;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};

use super::pages::Shown;
use report::board::Board;

/// Messages that come close together are one.
const CALM: Duration = Duration::from_secs(1);

/// A comment at least this often: proxies close what is silent.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Where the dashboard is, and who may look.
#[derive(Debug, Clone)]
pub struct Dashboard {
    pub address: SocketAddr,
    pub token: Option<DashboardToken>,
}

/// A token that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DashboardToken(String);

impl std::fmt::Debug for DashboardToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DashboardToken")
    }
}

impl std::str::FromStr for DashboardToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            short if short.len() < 16 => Err("a token has at least 16 characters"),
            token => Ok(Self(token.to_owned())),
        }
    }
}

impl DashboardToken {
    /// Compares digests, whose equal beginnings tell nothing about the token.
    fn is(&self, other: &str) -> bool {
        Sha256::digest(&self.0) == Sha256::digest(other)
    }
}

/// Serves the pages for as long as it is polled.
pub(super) async fn serve(
    listener: TcpListener,
    dashboard: Dashboard,
    board: Board,
    folder: PathBuf,
) -> Result<(), Failure> {
    let shared = Arc::new((dashboard, board, folder));
    let door = Door::new(Arc::new(move |asked: Asked| {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let (dashboard, board, folder) = &*shared;
            let mut answer = match dashboard.refusal(&asked) {
                Some(refusal) => refusal,
                None => answer(&asked, board, folder.clone()).await,
            };
            answer
                .headers
                .push(("content-security-policy", POLICY.to_owned()));
            answer
                .headers
                .push(("referrer-policy", "no-referrer".to_owned()));
            answer
        })
    }));
    door.serve(listener).await
}

impl Dashboard {
    /// Returns what is said to those who may not look.
    fn refusal(&self, asked: &Asked) -> Option<Answer> {
        if self.address.ip().is_loopback() && !asked.host.as_deref().is_some_and(is_this_machine) {
            return Some(Answer::text(
                421,
                "this dashboard is for this machine: ask for localhost\n",
            ));
        }
        let token = self.token.as_ref()?;
        if asked
            .bearer
            .as_deref()
            .is_some_and(|bearer| token.is(bearer))
        {
            return None;
        }
        let mut answer = Answer::text(401, "a bearer token is needed\n");
        answer
            .headers
            .push(("www-authenticate", "Bearer".to_owned()));
        Some(answer)
    }
}

/// Returns whether a `Host` is a name of this machine, with a port or without.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

async fn answer(asked: &Asked, board: &Board, folder: PathBuf) -> Answer {
    let name = asked.path.trim_start_matches('/').to_owned();
    match name.as_str() {
        "style.css" => return Answer::new(200, "text/css; charset=utf-8", STYLE),
        "live.js" => return Answer::new(200, "text/javascript; charset=utf-8", SCRIPT),
        // Browsers ask for it by themselves, and complain about a 404.
        "favicon.ico" => return Answer::new(204, "image/x-icon", ""),
        "events" => return Answer::messages(messages(board.subscribe())),
        _ => {}
    }
    let Some((route, form)) = Route::of(&name) else {
        return Answer::text(404, "there is no such page\n");
    };
    let made = tokio::task::spawn_blocking(move || -> Result<Option<String>, Failure> {
        let shown = Shown::read(&folder)?;
        let page = shown.site(true).page(&route, form);
        page.map_err(|error| Failure::of(shared::Exit::Machine, &error))
    });
    let kind = match form {
        Form::Html => "text/html; charset=utf-8",
        Form::Json => "application/json",
    };
    match made.await {
        Ok(Ok(Some(text))) => Answer::new(200, kind, text),
        Ok(Ok(None)) => Answer::text(404, "there is no such step, uid or competition\n"),
        Ok(Err(failure)) => {
            tracing::warn!(%failure, "a page could not be made");
            Answer::text(503, format!("the page could not be made: {failure}\n"))
        }
        Err(panic) => {
            tracing::error!(%panic, "making a page failed");
            Answer::text(500, "a bug of ours: please report it with the log\n")
        }
    }
}

/// Says that something has changed, whenever something has.
fn messages(changes: watch::Receiver<()>) -> Messages {
    Box::pin(stream::unfold(changes, |mut changes| async move {
        sleep(CALM).await;
        let message = match timeout(SIGN_OF_LIFE, changes.changed()).await {
            Ok(Ok(())) => "data: changed\n\n",
            Ok(Err(_)) => return None,
            Err(_) => ": still here\n\n",
        };
        Some((Bytes::from_static(message.as_bytes()), changes))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_names_of_this_machine() {
        for own in [
            "localhost",
            "localhost:80",
            "127.0.0.1:9102",
            "127.9.9.9",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(is_this_machine(own), "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example:80",
            "10.0.0.1",
            "",
            ":80",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_this_machine(other), "{other}");
        }
    }

    #[test]
    fn who_has_the_token_may_look_and_nobody_else() {
        let dashboard = Dashboard {
            address: "0.0.0.0:1".parse().unwrap(),
            token: Some("0123456789abcdef".parse().unwrap()),
        };
        let asked = |bearer: Option<&str>| Asked {
            path: "/".into(),
            query: None,
            host: Some("vali.example".into()),
            bearer: bearer.map(ToOwned::to_owned),
        };
        let status = |bearer| {
            dashboard
                .refusal(&asked(bearer))
                .map(|answer| answer.status)
        };
        assert_eq!(status(None), Some(401));
        assert_eq!(status(Some("0123456789abcdeX")), Some(401));
        assert_eq!(status(Some("0123456789abcdef")), None);
        assert!("short".parse::<DashboardToken>().is_err());
        assert_eq!(format!("{dashboard:?}").matches("0123").count(), 0);
        let here = Dashboard {
            address: "127.0.0.1:1".parse().unwrap(),
            token: None,
        };
        assert_eq!(
            here.refusal(&asked(None)).map(|answer| answer.status),
            Some(421)
        );
    }
}
