//! What the child says: sd_notify messages, its status file, and its silence.

use std::{io, path::Path, time::Duration};

use shared::status::Status;
use tokio::net::UnixDatagram;

const MAX_MESSAGE: usize = 4096;

/// One thing a child says over sd_notify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// READY=1
    Ready,
    /// STATUS=...
    Status(String),
    /// WATCHDOG=1
    Alive,
    /// WATCHDOG=trigger
    Hung,
    /// STOPPING=1
    Stopping,
    /// EXTEND_TIMEOUT_USEC=...
    Extend(Duration),
}

/// Reads the words of one message; unknown ones are skipped, as the protocol wants.
pub fn parse(message: &[u8]) -> Vec<Word> {
    let text = String::from_utf8_lossy(message);
    let word = |line: &str| {
        let (key, value) = line.split_once('=')?;
        match (key, value) {
            ("READY", "1") => Some(Word::Ready),
            ("STATUS", line) => Some(Word::Status(line.chars().take(300).collect())),
            ("WATCHDOG", "1") => Some(Word::Alive),
            ("WATCHDOG", "trigger") => Some(Word::Hung),
            ("STOPPING", "1") => Some(Word::Stopping),
            ("EXTEND_TIMEOUT_USEC", usec) => {
                Some(Word::Extend(Duration::from_micros(usec.parse().ok()?)))
            }
            _ => None,
        }
    };
    text.lines().filter_map(word).collect()
}

/// The socket behind the child's `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Ear {
    socket: UnixDatagram,
}

impl Ear {
    /// Binds the socket, in place of one left behind.
    pub fn bind(path: &Path) -> io::Result<Self> {
        crate::control::unlink_socket(path)?;
        Ok(Self {
            socket: UnixDatagram::bind(path)?,
        })
    }

    /// Waits for the next message.
    pub async fn hear(&self) -> Vec<Word> {
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

/// What is known of the child's health from its words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether it has said anything.
    pub speaks: bool,
    /// Its last STATUS= line.
    pub status: Option<String>,
    /// When silence means that it hangs.
    pub silence: Option<Duration>,
}

/// Returns what the child's status file says, if it is of this process.
pub fn read_status(path: &Path, pid: u32) -> Option<Status> {
    match Status::read(path) {
        Ok(status) => status.filter(|status| status.pid == pid),
        Err(error) => {
            tracing::debug!(%error, "could not read the child's status");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_protocol() {
        let message = b"READY=1\nSTATUS=step 3\nMAINPID=4\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=2000000";
        assert_eq!(
            parse(message),
            [
                Word::Ready,
                Word::Status("step 3".into()),
                Word::Alive,
                Word::Extend(Duration::from_secs(2)),
            ]
        );
        assert_eq!(
            parse(b"WATCHDOG=trigger\nSTOPPING=1"),
            [Word::Hung, Word::Stopping]
        );
        assert_eq!(parse(b"\xff\nEXTEND_TIMEOUT_USEC=x\nREADY=0"), []);
    }
}
