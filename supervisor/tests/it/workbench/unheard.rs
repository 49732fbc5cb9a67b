//! Supervisors whose output reaches nobody.

use std::{
    fs,
    io::Write,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    process::Stdio,
};

use super::{Bench, Running, flags};

impl Bench {
    /// Starts a supervisor whose output goes nowhere: the reader of one is gone, the other's disk
    /// is full.
    pub(crate) fn start_unheard(&self, extra: &[&str]) -> Running<'_> {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let process = self
            .base(flags(extra))
            .stdout(full)
            .stderr(Stdio::from(writer))
            .spawn()
            .unwrap();
        Running {
            process,
            bench: self,
        }
    }

    /// Starts a supervisor whose output goes into a pipe that is full and that nobody reads. It is
    /// full for as long as the reader is kept.
    pub(crate) fn start_unread(&self, extra: &[&str]) -> (Running<'_>, std::io::PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        // Opened once more: what the supervisor gets is to block.
        let mut filler = fs::File::options()
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{}", writer.as_raw_fd()))
            .unwrap();
        while filler.write(&[b'.'; 4096]).is_ok() {}
        let process = self
            .base(flags(extra))
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let running = Running {
            process,
            bench: self,
        };
        (running, reader)
    }
}
