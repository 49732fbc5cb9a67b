//! A log file that is rotated by size: `x.log`, `x.log.1`, `x.log.2`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A log file that is rotated by size.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    max_bytes: u64,
    keep: u32,
}

impl LogFile {
    /// Opens the log for appending. Beyond `max_bytes` it is renamed; `keep` older ones stay.
    pub fn open(path: &Path, max_bytes: u64, keep: u32) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = appending(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            max_bytes,
            keep,
        })
    }

    /// Appends bytes; an error says that the log could not be rotated. A full disk costs lines of
    /// the log and nothing else.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rotated = Ok(());
        if self.size + bytes.len() as u64 > self.max_bytes && self.size > 0 {
            rotated = self.rotate();
            // Where it could not be, it is tried again after as many bytes once more.
            self.size = 0;
        }
        if self.file.write_all(bytes).is_ok() {
            self.size += bytes.len() as u64;
        }
        rotated
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.keep).rev() {
            if numbered(n).exists() {
                fs::rename(numbered(n), numbered(n + 1))?;
            }
        }
        fs::rename(&self.path, numbered(1))?;
        self.file = appending(&self.path)?;
        Ok(())
    }
}

fn appending(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
}

/// A log file that all threads write to.
#[derive(Debug, Clone)]
pub(crate) struct SharedLogFile(Arc<Mutex<LogFile>>);

impl From<LogFile> for SharedLogFile {
    fn from(file: LogFile) -> Self {
        Self(Arc::new(Mutex::new(file)))
    }
}

impl Write for SharedLogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody to tell: it is the log itself that fails.
        let _ = file.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_rotated_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/x.log");
        let mut log = LogFile::open(&path, 10, 2).unwrap();
        for word in ["first..", "second.", "third.."] {
            log.append(word.as_bytes()).unwrap();
        }
        drop(log);
        LogFile::open(&path, 10, 2).unwrap().append(b"!").unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join("logs").join(name)).unwrap();
        assert_eq!(
            [read("x.log.2"), read("x.log.1"), read("x.log")],
            ["first..", "second.", "third..!"]
        );
    }
}
