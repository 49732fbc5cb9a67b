//! Standard output and error, written to without waiting for who reads them.
//!
//! A closed terminal, Ctrl-S, a reader that hangs or a full disk costs lines, never the program. What
//! can't be written at once is dropped and counted, and the count is written as soon as there is room.
//!
//! # Mechanism
//!
//! `O_NONBLOCK` belongs to the open file, which we share with whoever started us. A pipe or a terminal
//! is therefore opened once more, by way of `/proc/self/fd`, for us alone. A socket (journald's) takes
//! `MSG_DONTWAIT`. Everything else, and what can't be opened again, is asked by poll(2) and given no
//! more than a page at once: a pipe that says it has room takes as much (pipe(7)).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, send},
};

/// A pipe with any room takes as much without waiting.
const PAGE: usize = 4096;

/// What is written in place of so many lines that were lost.
pub type LossNote = fn(lost: u64) -> String;

/// Says how many lines were lost, as text.
pub fn plain_note(lost: u64) -> String {
    format!("... {lost} lines were lost: nobody read them in time\n")
}

/// An output that never makes its writer wait.
#[derive(Debug)]
pub struct Output {
    descriptor: Descriptor,
    note: LossNote,
    /// Lines that were not written since the last note.
    lost: u64,
    /// Whether the last line was cut off.
    torn: bool,
}

#[derive(Debug)]
enum Descriptor {
    /// Opened by us, and not blocking.
    Own(File),
    Socket(File),
    /// Shared with others, so that it is asked first.
    Shared(File),
}

impl Output {
    pub fn stdout(note: LossNote) -> io::Result<Self> {
        Self::of(io::stdout().as_fd(), note)
    }

    pub fn stderr(note: LossNote) -> io::Result<Self> {
        Self::of(io::stderr().as_fd(), note)
    }

    fn of(fd: BorrowedFd<'_>, note: LossNote) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let shared = || fd.try_clone_to_owned().map(File::from);
        let kind = fs::metadata(&path).map(|metadata| metadata.file_type());
        let descriptor = match kind {
            Ok(kind) if kind.is_socket() => Descriptor::Socket(shared()?),
            Ok(kind) if kind.is_fifo() || kind.is_char_device() => {
                let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
                let own = OpenOptions::new()
                    .write(true)
                    .custom_flags(flags)
                    .open(path);
                match own {
                    Ok(own) => Descriptor::Own(own),
                    // Another user's terminal, or a pipe whose reader is gone.
                    Err(_) => Descriptor::Shared(shared()?),
                }
            }
            _ => Descriptor::Shared(shared()?),
        };
        Ok(Self {
            descriptor,
            note,
            lost: 0,
            torn: false,
        })
    }

    /// Writes what there is room for; the rest is lost.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.lost > 0 {
            let end = if self.torn { "\n" } else { "" };
            let note = format!("{end}{}", (self.note)(self.lost));
            if self.write_some(note.as_bytes()) < note.len() {
                return self.lose(bytes);
            }
            self.lost = 0;
        }
        let written = self.write_some(bytes);
        self.torn = written > 0 && bytes[written - 1] != b'\n';
        self.lose(&bytes[written..]);
    }

    fn lose(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').count();
            self.lost = self.lost.saturating_add(lines as u64);
        }
    }

    /// Returns how many bytes were written.
    fn write_some(&self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.descriptor.write_once(&bytes[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        written
    }
}

impl Descriptor {
    fn write_once(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Own(file) => (&mut &*file).write(bytes),
            Self::Socket(socket) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(send(socket.as_raw_fd(), bytes, flags)?)
            }
            Self::Shared(file) => {
                let mut asked = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut asked, PollTimeout::ZERO)? == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                (&mut &*file).write(&bytes[..bytes.len().min(PAGE)])
            }
        }
    }
}

/// An output that all threads write to, a line at a time.
#[derive(Debug, Clone)]
pub(crate) struct SharedOutput(Arc<Mutex<Output>>);

impl From<Output> for SharedOutput {
    fn from(output: Output) -> Self {
        Self(Arc::new(Mutex::new(output)))
    }
}

impl Write for SharedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Reads all there is at the moment.
    fn available(reader: &mut io::PipeReader, output: Output) -> String {
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_they_are_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = Output::of(writer.as_fd(), plain_note).unwrap();
        assert!(matches!(output.descriptor, Descriptor::Own(_)));
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..1000 {
            output.put(&line);
        }
        assert!(output.lost > 900, "{}", output.lost);
        let lost = output.lost;
        let mut buffer = vec![0; 100_000];
        let _ = reader.read(&mut buffer).unwrap();
        output.put(b"again\n");
        assert_eq!(output.lost, 0);
        drop(writer);
        let text = available(&mut reader, output);
        assert!(
            text.ends_with(&format!(
                "... {lost} lines were lost: nobody read them in time\nagain\n"
            )),
            "{text}"
        );
    }

    #[test]
    fn what_is_shared_with_others_is_asked_first_and_not_changed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let shared = File::from(writer.as_fd().try_clone_to_owned().unwrap());
        let mut output = Output {
            descriptor: Descriptor::Shared(shared),
            note: plain_note,
            lost: 0,
            torn: false,
        };
        for _ in 0..1000 {
            output.put(&[b'y'; 1000]);
        }
        assert!(output.lost > 0);
        drop(writer);
        let text = available(&mut reader, output);
        assert!(text.len() >= 60_000, "{}", text.len());
    }

    #[test]
    fn a_reader_that_is_gone_a_socket_and_a_full_disk_stop_nobody() {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Output::of(writer.as_fd(), plain_note).unwrap();
        drop(reader);
        output.put(b"one\ntwo\n");
        assert_eq!(output.lost, 2);
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut output = Output::of(ours.as_fd(), plain_note).unwrap();
        assert!(matches!(output.descriptor, Descriptor::Socket(_)));
        for _ in 0..10_000 {
            output.put(&[b'z'; 1000]);
        }
        assert!(output.lost > 0);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut output = Output::of(full.as_fd(), plain_note).unwrap();
        output.put(b"one\n");
        assert_eq!(output.lost, 1);
    }
}
