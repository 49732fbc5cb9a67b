//! The child's output: through a named pipe into a log file that is rotated by size.
//!
//! The child holds both ends of the pipe, so it neither dies nor loses a line when the supervisor
//! does: the next supervisor reads on where the last one stopped. Not promised: a child whose
//! supervisor stays away has to wait once the pipe (1 MiB) is full.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
};

use nix::fcntl::{FcntlArg, fcntl};
use shared::{
    log_file::LogFile,
    output::{Output, plain_note},
};
use tokio::net::unix::pipe;

const PIPE_BYTES: i32 = 1 << 20;

/// The pipe between the child and the log.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// What the child gets as standard output and error.
    pub(crate) writer: File,
    pub(crate) reader: pipe::Receiver,
}

impl Pipe {
    /// Opens the named pipe, making it first if need be.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let writer = OpenOptions::new().read(true).write(true).open(path)?;
        // An unprivileged user may be over a quota; the default size does too.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let reader = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(path)?;
        Ok(Self { writer, reader })
    }
}

/// The child's log file, echoed to our standard output if asked for. A reader of the echo who is slow
/// or gone costs lines there; the file has them all.
#[derive(Debug)]
pub(crate) struct ChildLog {
    file: LogFile,
    echo: Option<Output>,
}

impl ChildLog {
    /// Opens the log for appending.
    pub(crate) fn open(path: &Path, max_bytes: u64, keep: u32, echo: bool) -> io::Result<Self> {
        let file = LogFile::open(path, max_bytes, keep)?;
        let echo = if echo {
            Output::stdout(plain_note).ok()
        } else {
            None
        };
        Ok(Self { file, echo })
    }

    /// Appends what the child wrote. A full disk costs log lines, never the child.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.echo(bytes);
        if let Err(error) = self.file.append(bytes) {
            tracing::warn!(%error, "could not rotate the child's log");
        }
    }

    /// Shows something beside the child's output, where that is shown.
    pub(crate) fn echo(&mut self, bytes: &[u8]) {
        if let Some(echo) = &mut self.echo {
            echo.put(bytes);
        }
    }
}
