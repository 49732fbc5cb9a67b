//! Processes around the worker, and what ends with them.

use std::io;

use nix::{
    errno::Errno,
    libc,
    sys::{prctl, signal::Signal, wait::WaitStatus},
    unistd::{Pid, getppid},
};
use shared::fork;

/// Closes every descriptor but the three standard ones.
pub(super) fn close_others() -> io::Result<()> {
    #[expect(unsafe_code, reason = "nothing of this process may use them")]
    // SAFETY: called before this process has opened any.
    let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    Ok(Errno::result(closed).map(drop)?)
}

/// Has this process killed when the one that made it ends.
pub(super) fn die_with_parent() -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}

/// A process other than our own, to be waited for.
#[derive(Debug)]
pub(super) struct Watched(libc::c_int);

impl Watched {
    /// The process that started this one; `None` where it is outside of our namespace or gone.
    pub(super) fn parent() -> Option<Self> {
        let watched = Self::of(getppid())?;
        Some(watched)
    }

    fn of(process: Pid) -> Option<Self> {
        #[expect(unsafe_code, reason = "libc has no name for this call")]
        // SAFETY: it takes numbers only.
        let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
        libc::c_int::try_from(handle)
            .ok()
            .filter(|handle| *handle >= 0)
            .map(Self)
    }
}

/// Waits until a child ends, which is killed when `parent` ends; returns how it ended.
pub(super) fn wait(parent: Option<&Watched>, child: Pid) -> io::Result<WaitStatus> {
    if let (Some(parent), Some(watched)) = (parent, Watched::of(child)) {
        let event = |watched: &Watched| libc::pollfd {
            fd: watched.0,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut events = [event(parent), event(&watched)];
        loop {
            #[expect(unsafe_code, reason = "nix is built without its poll")]
            // SAFETY: the kernel writes into as many events as there are.
            let returned = unsafe { libc::poll(events.as_mut_ptr(), 2, -1) };
            match Errno::result(returned) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        if events[0].revents != 0 && events[1].revents == 0 {
            let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
        }
    }
    fork::wait(child)
}
