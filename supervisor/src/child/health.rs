//! What the child says: sd_notify messages, its status file, and its silence.

use std::{
    io::{self, IoSliceMut},
    os::fd::AsRawFd as _,
    path::Path,
    time::Duration,
};

use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred,
    },
};
use shared::{clock, status::Status};
use tokio::{io::Interest, net::UnixDatagram};

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
        let socket = UnixDatagram::bind(path)?;
        setsockopt(&socket, PassCred, &true)?;
        Ok(Self { socket })
    }

    /// Waits for the next message.
    pub(crate) async fn receive(&self) -> NotifyMessage {
        let read = || self.read();
        match self.socket.async_io(Interest::READABLE, read).await {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "could not read a message to the child's socket");
                NotifyMessage::default()
            }
        }
    }

    fn read(&self) -> io::Result<NotifyMessage> {
        let mut buffer = [0; MAX_MESSAGE];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        // No room for descriptors, which the kernel closes then.
        let mut control = cmsg_space!(UnixCredentials);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let descriptor = self.socket.as_raw_fd();
        let received = recvmsg::<()>(descriptor, &mut parts, Some(&mut control), flags)?;
        let length = received.bytes;
        let sender = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmCredentials(sender) => u32::try_from(sender.pid()).ok(),
            _ => None,
        });
        Ok(NotifyMessage {
            sender,
            lines: parse(&buffer[..length]),
        })
    }
}

/// A message, and the process that sent it, by the kernel.
#[derive(Debug, Default)]
pub(crate) struct NotifyMessage {
    sender: Option<u32>,
    lines: Vec<Notification>,
}

impl NotifyMessage {
    /// Returns what it says if the child sent it, as with systemd's `NotifyAccess=main`: any process of
    /// this user can reach the socket, those that the child started for what it does not trust among
    /// them.
    pub(crate) fn of(self, child: Option<u32>) -> Vec<Notification> {
        if self.sender.is_some() && self.sender == child {
            return self.lines;
        }
        if !self.lines.is_empty() {
            tracing::warn!(
                sender = self.sender,
                child,
                "a process that is not the child sends messages in its name; they are ignored"
            );
        }
        Vec::new()
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

    #[tokio::test]
    async fn messages_of_others_than_the_child_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = NotifySocket::bind(&path).unwrap();
        let us = std::process::id();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        for (child, taken) in [(Some(us), 1), (Some(us + 1), 0), (None, 0)] {
            sender.send_to(b"STOPPING=1", &path).unwrap();
            let message = socket.receive().await;
            assert_eq!(message.of(child).len(), taken, "{child:?}");
        }
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
