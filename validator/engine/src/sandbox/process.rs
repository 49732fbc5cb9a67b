//! Processes around the worker, made before it has threads: forks, and ends without clean-up.

use std::io;

use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        signal::{SigHandler, Signal, raise, signal},
        wait::{WaitStatus, waitpid},
    },
    unistd::{self, ForkResult, Pid, getppid},
};

/// Exit codes beyond this tell of a signal, as in a shell.
const SIGNALED: i32 = 128;

pub(super) fn fork() -> io::Result<ForkResult> {
    #[expect(unsafe_code, reason = "a child of many threads may use little")]
    // SAFETY: called while this process has one thread, so that no lock is held by another.
    let forked = unsafe { unistd::fork() };
    Ok(forked?)
}

/// Ends this process without what it would do at its end, which is the worker's to do.
#[expect(unsafe_code, reason = "the standard library has no such end")]
pub(super) fn end(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Ends as another process did.
pub(super) fn end_as(status: WaitStatus) -> ! {
    match status {
        WaitStatus::Exited(_, code) if code > SIGNALED => end_by(code - SIGNALED),
        WaitStatus::Exited(_, code) => end(code),
        WaitStatus::Signaled(_, by, _) => end_by(by as i32),
        _ => end(SIGNALED),
    }
}

fn end_by(number: i32) -> ! {
    if let Ok(by) = Signal::try_from(number) {
        #[expect(unsafe_code, reason = "handlers of signals are set so")]
        // SAFETY: no handler of ours is set, but the system's own action.
        let _ = unsafe { signal(by, SigHandler::SigDfl) };
        let _ = raise(by);
    }
    // Also where signals can't end a process: the first one of a namespace.
    end(SIGNALED + number)
}

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
    loop {
        // Orphans of a namespace are its first process's to wait for.
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            ended => return Ok(ended?),
        }
    }
}
