//! What the child says: sd_notify messages, its status file, and its silence.

use std::{io, path::Path, time::Duration};

use shared::{clock, status::Status};
use tokio::net::UnixDatagram;

const MAX_MESSAGE: usize = 4096;

/// One thing a child says over sd_notify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notification {
    /// READY=1
    Ready,
    Status(String),
    /// WATCHDOG=1
    Alive,
    Hung,
    /// STOPPING=1
    Stopping,
    Extend(Duration),
}

/// Reads the lines of one message; unknown ones are skipped, as the protocol wants.
fn parse(message: &[u8]) -> Vec<Notification> {
    let text = String::from_utf8_lossy(message);
    let line = |line: &str| {
        let (key, value) = line.split_once('=')?;
        match (key, value) {
            ("READY", "1") => Some(Notification::Ready),
            ("STATUS", line) => Some(Notification::Status(line.chars().take(300).collect())),
            ("WATCHDOG", "1") => Some(Notification::Alive),
            ("WATCHDOG", "trigger") => Some(Notification::Hung),
            ("STOPPING", "1") => Some(Notification::Stopping),
            ("EXTEND_TIMEOUT_USEC", usec) => Some(Notification::Extend(Duration::from_micros(
                usec.parse().ok()?,
            ))),
            _ => None,
        }
    };
    text.lines().filter_map(line).collect()
}

/// The socket behind the child's `NOTIFY_SOCKET`.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
}

impl NotifySocket {
    /// Binds the socket, in place of one left behind.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        shared::file::remove_file(path).map_err(|error| error.source)?;
        Ok(Self {
            socket: UnixDatagram::bind(path)?,
        })
    }

    /// Waits for the next message.
    pub(crate) async fn receive(&self) -> Vec<Notification> {
        let mut buffer = [0; MAX_MESSAGE];
        match self.socket.recv(&mut buffer).await {
            Ok(length) => parse(&buffer[..length]),
            Err(error) => {
                tracing::warn!(%error, "could not read the child's message");
                Vec::new()
            }
        }
    }
}

/// What the child has said over sd_notify.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notified {
    /// Whether it has said anything.
    pub(crate) speaks: bool,
    pub(crate) status: Option<String>,
    /// When silence means that it hangs.
    pub(crate) silence: Option<Duration>,
}

/// Returns what the child's status file says, if it is of this process, as far as it still holds.
pub(crate) fn read_status(path: &Path, pid: u32) -> Option<Status> {
    match Status::read(path) {
        Ok(status) => status
            .filter(|status| status.pid == pid)
            .map(|status| status.as_of(clock::unix_seconds())),
        Err(error) => {
            tracing::debug!(%error, "could not read the child's status");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::status::{FORMAT, Health, SafePoint};

    use super::*;

    #[test]
    fn a_status_of_another_process_is_not_taken_and_a_stale_one_is_not_green() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        let mut status: Status = Status {
            format: FORMAT,
            pid: 42,
            version: "1".into(),
            written_at: clock::unix_seconds(),
            renewed_every: Some(15),
            phase: "working".into(),
            health: Health::Green,
            problems: vec![],
            restart: SafePoint {
                safe: true,
                reason: String::new(),
                until: None,
            },
            details: serde_json::json!({"any": "thing"}),
        };
        status.write(&path).unwrap();
        assert_eq!(read_status(&path, 41), None);
        assert_eq!(read_status(&path, 42).as_ref(), Some(&status));
        status.written_at -= 600;
        status.write(&path).unwrap();
        let stale = read_status(&path, 42).unwrap();
        assert_eq!(stale.health, Health::Yellow);
        assert_eq!(stale.details, status.details);
    }

    #[test]
    fn lines_of_the_protocol() {
        let message = b"READY=1\nSTATUS=step 3\nMAINPID=4\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=2000000";
        assert_eq!(
            parse(message),
            [
                Notification::Ready,
                Notification::Status("step 3".into()),
                Notification::Alive,
                Notification::Extend(Duration::from_secs(2)),
            ]
        );
        assert_eq!(
            parse(b"WATCHDOG=trigger\nSTOPPING=1"),
            [Notification::Hung, Notification::Stopping]
        );
        assert_eq!(parse(b"\xff\nEXTEND_TIMEOUT_USEC=x\nREADY=0"), []);
    }
}
