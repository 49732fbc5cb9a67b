//! The wall around system calls: a seccomp filter that lets through what is written here, and nothing else.
//!
//! What is refused is refused with EPERM; `clone3`, whose flags no filter can read, with ENOSYS, so that the C
//! library takes `clone`. Calls of other architectures end the process; those of x32 have numbers of their own,
//! which no list here has.

use std::collections::BTreeMap;

use nix::{libc, unistd::getpid};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule,
};

use super::gpu::Gpu;

type Rules = BTreeMap<i64, Vec<Rule>>;

/// What computing on a CPU needs, whatever the arguments: memory of its own, threads, files that landlock lets
/// it open, time, signals to itself.
const ALWAYS: [libc::c_long; 62] = [
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    // Refused by another filter, see `missing`.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    // Files.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_dup,
    libc::SYS_ppoll,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // Signals, to itself.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    // What it may know of itself and of the machine.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_times,
    libc::SYS_getpgrp,
    libc::SYS_capget,
    libc::SYS_get_mempolicy,
];

/// Older names of the same, which the C library still uses on this architecture.
#[cfg(target_arch = "x86_64")]
const OLDER: [libc::c_long; 7] = [
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [libc::c_long; 0] = [];

/// What a CUDA driver needs besides: its device files, memory shared with them, events and locks. Those of its
/// calls that make or remove files come to nothing where landlock lets no file be written.
const CUDA: [libc::c_long; 43] = [
    libc::SYS_ioctl,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_move_pages,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_umask,
    libc::SYS_utimensat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getpriority,
];

/// Older names of the same.
#[cfg(target_arch = "x86_64")]
const OLDER_CUDA: [libc::c_long; 11] = [
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_pipe,
    libc::SYS_eventfd,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_getdents,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CUDA: [libc::c_long; 0] = [];

/// What a driver needs while it starts, and what raises the walls behind it.
const STARTING: [libc::c_long; 7] = [
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_getsockname,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_seccomp,
];

/// Holds every thread of this process to the lists from now on.
pub(super) fn restrict(gpu: Gpu) -> Result<String, String> {
    let programs = [missing(), allowing(gpu)];
    for program in programs {
        let program = program.map_err(|error| error.to_string())?;
        seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())?;
    }
    Ok("the calls of a list: no programs, no processes, no network".to_owned())
}

fn filter(
    rules: Rules,
    others: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, others, listed, architecture)?.try_into()
}

/// Calls that are answered as by a kernel without them. It comes first: of two filters that refuse a call with
/// an error, the later one's counts, so that the list lets it through.
fn missing() -> Result<BpfProgram, BackendError> {
    let rules = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    filter(rules, SeccompAction::Allow, missing)
}

fn allowing(gpu: Gpu) -> Result<BpfProgram, BackendError> {
    let mut rules = Rules::new();
    let mut whole = |calls: &[libc::c_long]| {
        for &call in calls {
            rules.insert(call, Vec::new());
        }
    };
    whole(&ALWAYS);
    whole(&OLDER);
    if gpu != Gpu::None {
        whole(&CUDA);
        whole(&OLDER_CUDA);
    }
    if gpu == Gpu::Starting {
        whole(&STARTING);
    }
    for (call, some) in by_argument(gpu)? {
        rules.entry(call).or_insert(some);
    }
    filter(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
    )
}

/// The calls of which only some are let through.
fn by_argument(gpu: Gpu) -> Result<Vec<(i64, Vec<Rule>)>, BackendError> {
    let is = |argument, value: u64| Condition::new(argument, Len::Qword, Op::Eq, value);
    let bits = |argument, mask: u64, value: u64| {
        Condition::new(argument, Len::Qword, Op::MaskedEq(mask), value)
    };
    let int = |argument, value: i32| {
        Condition::new(
            argument,
            Len::Dword,
            Op::Eq,
            u64::from(value.cast_unsigned()),
        )
    };
    let all = |conditions| Rule::new(conditions);
    let any_of = |argument, values: &[i32]| -> Result<Vec<Rule>, BackendError> {
        let one = |&value| all(vec![int(argument, value)?]);
        values.iter().map(one).collect()
    };
    let own = getpid().as_raw();
    let (shared, executable) = (libc::MAP_SHARED as u64, libc::PROT_EXEC as u64);
    let threads = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
    let threads = u64::from(threads.cast_unsigned());
    let mut rules = vec![
        // Memory is neither shared nor run; a driver's is both, see above.
        (
            libc::SYS_mmap,
            vec![all(vec![bits(2, executable, 0)?, bits(3, shared, 0)?])?],
        ),
        (
            libc::SYS_mprotect,
            vec![all(vec![bits(2, executable, 0)?])?],
        ),
        // Threads, but no processes.
        (
            libc::SYS_clone,
            vec![all(vec![bits(0, threads, threads)?])?],
        ),
        (libc::SYS_tgkill, vec![all(vec![int(0, own)?])?]),
        // One's own limits, to read.
        (
            libc::SYS_prlimit64,
            vec![
                all(vec![int(0, 0)?, is(2, 0)?])?,
                all(vec![int(0, own)?, is(2, 0)?])?,
            ],
        ),
        (libc::SYS_sched_setaffinity, vec![all(vec![int(0, 0)?])?]),
        (
            libc::SYS_fcntl,
            any_of(
                1,
                &[
                    libc::F_DUPFD,
                    libc::F_DUPFD_CLOEXEC,
                    libc::F_GETFD,
                    libc::F_SETFD,
                    libc::F_GETFL,
                ],
            )?,
        ),
        // Is standard error a terminal?
        (libc::SYS_ioctl, any_of(1, &[libc::TCGETS as i32])?),
    ];
    let mut options = vec![libc::PR_SET_NAME, libc::PR_GET_NAME];
    if gpu != Gpu::None {
        options.extend([libc::PR_GET_DUMPABLE, libc::PR_CAPBSET_READ]);
        let locks = [
            libc::F_DUPFD,
            libc::F_DUPFD_CLOEXEC,
            libc::F_GETFD,
            libc::F_SETFD,
            libc::F_GETFL,
            libc::F_SETFL,
            libc::F_GETLK,
            libc::F_SETLK,
            libc::F_SETLKW,
            libc::F_ADD_SEALS,
            libc::F_GET_SEALS,
        ];
        rules.retain(|(call, _)| *call != libc::SYS_fcntl);
        rules.push((libc::SYS_fcntl, any_of(1, &locks)?));
    }
    if gpu == Gpu::Starting {
        // The first filter's own flag, set once more when the next is applied.
        options.push(libc::PR_SET_NO_NEW_PRIVS);
        rules.extend(sockets()?);
    }
    rules.push((libc::SYS_prctl, any_of(0, &options)?));
    Ok(rules)
}

/// Where a driver listens: no datagrams, which go to anybody without a connection.
fn sockets() -> Result<[(i64, Vec<Rule>); 2], BackendError> {
    let kind = |kind: i32| -> Result<Rule, BackendError> {
        let (family, kind) = (libc::AF_UNIX as u64, u64::from(kind.cast_unsigned()));
        Rule::new(vec![
            Condition::new(0, Len::Dword, Op::Eq, family)?,
            Condition::new(1, Len::Dword, Op::MaskedEq(0xf), kind)?,
        ])
    };
    let kinds = vec![kind(libc::SOCK_STREAM)?, kind(libc::SOCK_SEQPACKET)?];
    Ok([
        (libc::SYS_socket, kinds.clone()),
        (libc::SYS_socketpair, kinds),
    ])
}
