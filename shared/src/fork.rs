//! Processes that go on as copies of this one, made while it has one thread, and their end.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

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

/// `CLONE_INTO_CGROUP` of linux/sched.h, which libc cuts to 32 bits.
const INTO_CGROUP: u64 = 1 << 33;

pub fn fork() -> io::Result<ForkResult> {
    #[expect(unsafe_code, reason = "a child of many threads may use little")]
    // SAFETY: called while this process has one thread, so that no lock is held by another.
    let forked = unsafe { unistd::fork() };
    Ok(forked?)
}

/// Forks as [`fork`] does, the copy in a control group from its first moment on (clone3(2), Linux 5.7); returns in the
/// first process only when the copy has become another program or has ended.
pub fn fork_into(group: &impl AsFd) -> io::Result<ForkResult> {
    let word = |number: i32| u64::from(number.cast_unsigned());
    let arguments = libc::clone_args {
        flags: INTO_CGROUP | word(libc::CLONE_VFORK),
        exit_signal: word(libc::SIGCHLD),
        cgroup: word(group.as_fd().as_raw_fd()),
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
    };
    #[expect(unsafe_code, reason = "libc has no name for this call")]
    // SAFETY: as `fork`; memory is not shared, the arguments outlive the call, and a stack of 0 is a copy of this one.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    let pid = libc::pid_t::try_from(Errno::result(pid)?).map_err(io::Error::other)?;
    Ok(match pid {
        0 => ForkResult::Child,
        pid => ForkResult::Parent {
            child: Pid::from_raw(pid),
        },
    })
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
