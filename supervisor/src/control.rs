//! The control socket: one JSON request, one JSON reply, for the owner only.

use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use shared::{Failure, supervision::exchange};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use crate::{report::Report, update::state::Polled};

const MAX_LINE: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
/// A check asks the remote, which may be slow.
const CHECK_PATIENCE: Duration = Duration::from_mins(2);

/// What can be asked of a running supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    Status,
    Restart,
    /// Stop the child and yourself.
    Stop,
    /// Look for an update now.
    Update {
        /// Wait for no safe point and lift the quarantine.
        #[serde(default)]
        force: bool,
        /// Take the local changes, although signatures are required.
        #[serde(default)]
        local: bool,
    },
    /// Say what an update would do.
    Check,
    /// Go back to the previous release.
    Rollback,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Status(Box<Report>),
    Check(Polled),
    Done(String),
    /// It can't be done now.
    Refused(String),
}

/// A request on its way to the loop.
#[derive(Debug)]
pub struct PendingRequest {
    pub request: Request,
    pub reply: oneshot::Sender<Reply>,
}

/// Opens the socket, in place of one left behind; only its owner may use it.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    // Left by a process that is dead: we hold the lock.
    shared::file::remove_file(path).map_err(|error| error.source)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves one connection. A slow or silent peer is dropped; its fault stays its own.
pub async fn serve(
    stream: UnixStream,
    requests: mpsc::Sender<PendingRequest>,
) -> Result<(), Failure> {
    let talk = async {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        BufReader::new(reader.take(MAX_LINE))
            .read_line(&mut line)
            .await?;
        let reply = match serde_json::from_str(&line) {
            Ok(request) => {
                let (sender, receiver) = oneshot::channel();
                let _ = requests
                    .send(PendingRequest {
                        request,
                        reply: sender,
                    })
                    .await;
                receiver
                    .await
                    .unwrap_or_else(|_| Reply::Refused("stopping".into()))
            }
            Err(error) => Reply::Refused(format!("not understood: {error}")),
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        writer.write_all(&text).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(CHECK_PATIENCE, talk).await {
        tracing::debug!(%error, "a control connection failed");
    }
    Ok(())
}

/// Asks a running supervisor; an error of kind `NotFound` or `ConnectionRefused` means that none
/// runs.
pub async fn ask(path: &Path, request: &Request) -> io::Result<Reply> {
    let patience = if *request == Request::Check {
        CHECK_PATIENCE
    } else {
        PATIENCE
    };
    exchange(path, request, patience).await
}
