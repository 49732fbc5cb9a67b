//! The child's output: through a named pipe into a log file that is rotated by size.
//!
//! The child holds both ends of the pipe, so it neither dies nor loses a line when the supervisor
//! does: the next supervisor reads on where the last one stopped. Not promised: a child whose
//! supervisor stays away has to wait once the pipe (1 MiB) is full.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{FcntlArg, fcntl};
use tokio::net::unix::pipe;

const PIPE_BYTES: i32 = 1 << 20;

/// The pipe between the child and the log.
#[derive(Debug)]
pub struct Pipe {
    /// What the child gets as standard output and error.
    pub writer: File,
    /// What we read from.
    pub reader: pipe::Receiver,
}

impl Pipe {
    /// Opens the named pipe, making it first if need be.
    pub fn open(path: &Path) -> io::Result<Self> {
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

/// A log file that is rotated by size: `x.log`, `x.log.1`, `x.log.2`.
#[derive(Debug)]
pub struct RotatedLog {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_bytes: u64,
    keep: u32,
    echo: bool,
}

impl RotatedLog {
    /// Opens the log for appending.
    pub fn open(path: &Path, max_bytes: u64, keep: u32, echo: bool) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            size,
            max_bytes,
            keep,
            echo,
        })
    }

    /// Appends what the child wrote. A full disk costs log lines, never the child.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.echo {
            let _ = io::stdout()
                .write_all(bytes)
                .and_then(|()| io::stdout().flush());
        }
        if self.size + bytes.len() as u64 > self.max_bytes && self.size > 0 {
            self.rotate();
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.size += bytes.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let numbered = |n: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        let shift = || -> io::Result<File> {
            for n in (1..self.keep).rev() {
                if numbered(n).exists() {
                    fs::rename(numbered(n), numbered(n + 1))?;
                }
            }
            fs::rename(&self.path, numbered(1))?;
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .open(&self.path)
        };
        match shift() {
            Ok(file) => {
                self.file = Some(file);
                self.size = 0;
            }
            Err(error) => {
                tracing::warn!(%error, "could not rotate the child's log");
                // Try again after as many bytes once more.
                self.size = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_rotated_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/x.log");
        let mut log = RotatedLog::open(&path, 10, 2, false).unwrap();
        for word in ["first..", "second.", "third.."] {
            log.append(word.as_bytes());
        }
        drop(log);
        RotatedLog::open(&path, 10, 2, false).unwrap().append(b"!");
        let read = |name: &str| fs::read_to_string(dir.path().join("logs").join(name)).unwrap();
        assert_eq!(
            [read("x.log.2"), read("x.log.1"), read("x.log")],
            ["first..", "second.", "third..!"]
        );
    }
}
