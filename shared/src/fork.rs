//! Processes that go on as copies of this one, made while it has one thread, and their end.

use std::io;

use nix::{
    errno::Errno,
    libc,
    sys::{
        signal::{SigHandler, Signal, raise, signal},
        wait::{WaitStatus, waitpid},
    },
    unistd::{self, ForkResult, Pid},
};

/// Exit codes beyond this tell of a signal, as in a shell.
const SIGNALED: i32 = 128;

pub fn fork() -> io::Result<ForkResult> {
    #[expect(unsafe_code, reason = "a child of many threads may use little")]
    // SAFETY: called while this process has one thread, so that no lock is held by another.
    let forked = unsafe { unistd::fork() };
    Ok(forked?)
}

/// Ends this process without what it would do at its end, which is its copy's to do.
#[expect(unsafe_code, reason = "the standard library has no such end")]
pub fn end(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Waits for the end of a child, and returns how it ended.
pub fn wait(child: Pid) -> io::Result<WaitStatus> {
    loop {
        // Orphans of a namespace are its first process's to wait for.
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            ended => return Ok(ended?),
        }
    }
}

/// Ends as a child did.
pub fn follow(ended: io::Result<WaitStatus>) -> ! {
    match ended {
        Ok(WaitStatus::Exited(_, code)) if code > SIGNALED => end_by(code - SIGNALED),
        Ok(WaitStatus::Exited(_, code)) => end(code),
        Ok(WaitStatus::Signaled(_, by, _)) => end_by(by as i32),
        Ok(_) => end(SIGNALED),
        Err(_) => end(1),
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
