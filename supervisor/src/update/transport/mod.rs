//! How libgit2 reaches remotes: HTTP through the client we have anyway, SSH through the `ssh` program.
//!
//! Its own ways would link a second TLS library and an SSH library into a program that should be
//! small, and know neither the operator's `~/.ssh/config` nor what his `ssh` knows of keys.

mod http;
mod ssh;

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    sync::Once,
};

use git2::{
    Error, ErrorClass, ErrorCode,
    transport::{Transport, register},
};

use super::login::Login;

pub(crate) use ssh::is_ssh;

/// Largest list of branches and tags a remote may send, in bytes: half a million of them.
const MAX_REFS: u64 = 32 << 20;

thread_local! {
    /// For the transports that libgit2 makes on this thread: it hands them nothing but an address.
    static LOGIN: RefCell<Login> = RefCell::default();
}

/// Lets `fetch` reach remotes with what there is to log in with. All fetching goes through here.
pub(crate) fn with_login<T>(login: Login, fetch: impl FnOnce() -> T) -> T {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        if let Err(error) = install() {
            tracing::error!(%error, "only local remotes can be fetched");
        }
    });
    LOGIN.set(login);
    let done = fetch();
    LOGIN.take();
    done
}

#[expect(unsafe_code, reason = "libgit2 keeps its transports in a global list")]
fn install() -> Result<(), Error> {
    for scheme in ["http", "https"] {
        // SAFETY: called once, and before any transport is made, as `with_login` is the only door.
        unsafe {
            register(scheme, |remote| {
                Transport::smart(
                    remote,
                    true,
                    http::Http::new(LOGIN.with_borrow(Login::clone)),
                )
            })?;
        }
    }
    // libgit2 takes the first of them for `user@host:path` too.
    for scheme in ["ssh", "ssh+git", "git+ssh"] {
        // SAFETY: as above.
        unsafe {
            register(scheme, |remote| {
                Transport::smart(
                    remote,
                    false,
                    ssh::Ssh::new(LOGIN.with_borrow(Login::clone)),
                )
            })?;
        }
    }
    Ok(())
}

/// An error of the remote, or of the way there. Control characters may be a stranger's: the text goes
/// through C and to terminals.
fn outside(code: ErrorCode, text: &str) -> Error {
    let printable: String = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    Error::new(code, ErrorClass::Net, printable)
}

fn no_login(tried: &str) -> Error {
    outside(
        ErrorCode::Auth,
        &format!("no login was accepted (tried {tried})"),
    )
}

fn only_fetching() -> Error {
    outside(ErrorCode::Invalid, "this program only fetches")
}

fn broken(error: &Error) -> io::Error {
    io::Error::other(error.message().to_owned())
}

/// Bounds what a remote sends before it is asked for anything: libgit2 keeps all of it in memory.
struct Bounded<S> {
    stream: S,
    asked: bool,
    left: u64,
}

impl<S> Bounded<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            asked: false,
            left: MAX_REFS,
        }
    }
}

impl<S: Read> Read for Bounded<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        if !self.asked {
            let left = self.left.checked_sub(read as u64);
            self.left = left.ok_or_else(|| io::Error::other("its list of branches has no end"))?;
        }
        Ok(read)
    }
}

impl<S: Write> Write for Bounded<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.asked = true;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
