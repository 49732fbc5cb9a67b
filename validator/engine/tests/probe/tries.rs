//! What code of a stranger might try from within a worker. Each comes to nothing behind the walls.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    libc::{self, c_long},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid},
};
use serde::{Deserialize, Serialize};

/// What lies outside, as far as a stranger can know it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outside {
    /// The process that started the worker.
    pub(crate) process: i32,
    /// A file that only this user may read.
    pub(crate) key: PathBuf,
    /// A descriptor of it that was left open.
    pub(crate) descriptor: i32,
    /// The only folder that the worker may read.
    pub(crate) models: PathBuf,
    /// A socket for datagrams, such as the system's for notices of services.
    pub(crate) notify: PathBuf,
    /// Names of abstract sockets: for datagrams, for streams.
    pub(crate) datagrams: String,
    pub(crate) streams: String,
    /// A variable in the environment of the process outside.
    pub(crate) secret: String,
}

/// How an attempt ended: `None` if it worked.
pub(crate) type Ended = Option<i32>;

type Tried = Result<(), Errno>;

pub(crate) struct Try {
    pub(crate) name: &'static str,
    go: Box<dyn Fn(&Outside) -> Tried>,
}

/// What the kernel answers to a call that it looked into is not a refusal.
const REFUSALS: [Errno; 9] = [
    Errno::EPERM,
    Errno::EACCES,
    Errno::ENOSYS,
    Errno::ESRCH,
    Errno::ENOENT,
    Errno::ECONNREFUSED,
    Errno::EAFNOSUPPORT,
    Errno::EROFS,
    Errno::EXDEV,
];

impl Try {
    /// Tries, in a process of its own if one can be had: what works changes nothing for the next.
    pub(crate) fn attempt(&self, outside: &Outside) -> Ended {
        let code = || match (self.go)(outside) {
            Err(errno) if REFUSALS.contains(&errno) => errno as i32,
            Ok(()) | Err(_) => 0,
        };
        #[expect(unsafe_code, reason = "what forks is probed")]
        // SAFETY: this process has one thread.
        let code = match unsafe { nix::unistd::fork() } {
            Err(_) => code(),
            Ok(ForkResult::Child) => {
                let code = code();
                // SAFETY: it takes a number and does not return.
                unsafe { libc::_exit(code) }
            }
            Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => code,
                // Ended by a wall.
                _ => Errno::EPERM as i32,
            },
        };
        (code != 0).then_some(code)
    }
}

fn call(number: c_long, arguments: &[c_long]) -> Tried {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    #[expect(unsafe_code, reason = "what the kernel refuses is probed")]
    // SAFETY: pointers among the arguments live until it returns, or are null.
    let returned = unsafe { libc::syscall(number, all[0], all[1], all[2], all[3], all[4], all[5]) };
    Errno::result(returned).map(drop)
}

fn of_io(result: io::Result<impl Sized>) -> Tried {
    let code = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    result.map(drop).map_err(code)
}

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default()
}

fn address(text: &CString) -> c_long {
    text.as_ptr() as c_long
}

fn read(path: impl AsRef<Path>) -> Tried {
    of_io(fs::read(path))
}

fn list(path: impl AsRef<Path>) -> Tried {
    of_io(fs::read_dir(path))
}

fn write(path: impl AsRef<Path>) -> Tried {
    of_io(OpenOptions::new().write(true).open(path))
}

fn make(path: impl AsRef<Path>) -> Tried {
    of_io(File::create_new(&path))?;
    // The next one is to find nothing there.
    let _ = fs::remove_file(path);
    Ok(())
}

fn of_process(outside: &Outside, name: &str) -> PathBuf {
    Path::new("/proc")
        .join(outside.process.to_string())
        .join(name)
}

fn socket(family: i32, kind: i32, protocol: i32) -> Tried {
    call(
        libc::SYS_socket,
        &[family.into(), kind.into(), protocol.into()],
    )
}

/// Makes a local socket; sends to an address, or connects to it.
fn reach(kind: i32, name: &[u8], number: c_long) -> Tried {
    let make = [libc::AF_UNIX, kind, 0];
    #[expect(unsafe_code, reason = "what the kernel refuses is probed")]
    // SAFETY: it takes numbers only.
    let socket = Errno::result(unsafe { libc::socket(make[0], make[1], make[2]) })?;
    let mut address = vec![1_u8, 0];
    address.extend(name);
    let (to, length) = (address.as_ptr() as c_long, address.len() as c_long);
    if number == libc::SYS_connect {
        return call(number, &[socket.into(), to, length]);
    }
    let text = b"STOPPING=1";
    call(
        number,
        &[socket.into(), text.as_ptr() as c_long, 10, 0, to, length],
    )
}

fn abstract_name(name: &str) -> Vec<u8> {
    [b"\0", name.as_bytes()].concat()
}

macro_rules! tries {
    ($($name:literal: |$outside:tt| $go:expr;)*) => {
        vec![$(Try { name: $name, go: Box::new(|$outside: &Outside| $go) }),*]
    };
}

/// Calls that are probed by number alone: with arguments that the kernel, if it looks at them, finds wrong.
const KERNEL: [(&str, c_long, [c_long; 3]); 34] = [
    (
        "prctl: outlive the parent",
        libc::SYS_prctl,
        [libc::PR_SET_PDEATHSIG as c_long, 0, 0],
    ),
    (
        "prctl: change what is dumpable",
        libc::SYS_prctl,
        [libc::PR_SET_DUMPABLE as c_long, 0, 0],
    ),
    ("setsid", libc::SYS_setsid, [0; 3]),
    ("setpgid", libc::SYS_setpgid, [0, 0, 0]),
    (
        "unshare users",
        libc::SYS_unshare,
        [libc::CLONE_NEWUSER as c_long, 0, 0],
    ),
    (
        "unshare network",
        libc::SYS_unshare,
        [libc::CLONE_NEWNET as c_long, 0, 0],
    ),
    ("setns", libc::SYS_setns, [-1, 0, 0]),
    ("mount", libc::SYS_mount, [0; 3]),
    ("fsopen", libc::SYS_fsopen, [0; 3]),
    ("pivot_root", libc::SYS_pivot_root, [0; 3]),
    ("chroot", libc::SYS_chroot, [0; 3]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0]),
    ("bpf", libc::SYS_bpf, [0; 3]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 3]),
    ("userfaultfd", libc::SYS_userfaultfd, [0; 3]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
    ("keyctl", libc::SYS_keyctl, [0, -3, 0]),
    ("add_key", libc::SYS_add_key, [0; 3]),
    ("init_module", libc::SYS_init_module, [0; 3]),
    ("finit_module", libc::SYS_finit_module, [-1, 0, 0]),
    ("kexec_load", libc::SYS_kexec_load, [0, 99, 0]),
    ("reboot", libc::SYS_reboot, [0; 3]),
    ("clock_settime", libc::SYS_clock_settime, [0; 3]),
    ("settimeofday", libc::SYS_settimeofday, [1, 0, 0]),
    ("sethostname", libc::SYS_sethostname, [0, -1, 0]),
    ("swapon", libc::SYS_swapon, [0; 3]),
    ("syslog", libc::SYS_syslog, [10, 0, 0]),
    ("acct", libc::SYS_acct, [1, 0, 0]),
    ("personality", libc::SYS_personality, [0xffff_ffff, 0, 0]),
    ("shmget", libc::SYS_shmget, [0, 4096, 0o1600]),
    ("semget", libc::SYS_semget, [0, 1, 0o1600]),
    ("mq_open", libc::SYS_mq_open, [0; 3]),
    ("timer_create", libc::SYS_timer_create, [0; 3]),
    ("setuid of another", libc::SYS_setuid, [1234, 0, 0]),
];

/// Everything that is tried.
pub(crate) fn all() -> Vec<Try> {
    let mut all = of_files();
    all.extend(of_processes());
    all.extend(of_sockets());
    all.extend(of_memory());
    all.extend(KERNEL.iter().map(|&(name, number, arguments)| Try {
        name,
        go: Box::new(move |_| call(number, &arguments)),
    }));
    all
}

fn of_files() -> Vec<Try> {
    tries! {
        "read the key": |o| read(&o.key);
        "read it through a descriptor left open": |o| {
            let mut bytes = [0_u8; 4];
            let to = bytes.as_mut_ptr() as c_long;
            let read = call(libc::SYS_pread64, &[o.descriptor.into(), to, 4, 0]);
            // Closed.
            read.map_err(|errno| if errno == Errno::EBADF { Errno::ENOENT } else { errno })
        };
        "find a secret in the environment": |o| {
            let found = std::env::vars_os().any(|(name, _)| name == *o.secret);
            if found { Ok(()) } else { Err(Errno::ENOENT) }
        };
        "list the key's folder": |o| list(o.key.parent().unwrap_or(Path::new("/")));
        "list the root folder": |_| list("/");
        "read /etc/shadow": |_| read("/etc/shadow");
        "read /etc/passwd": |_| read("/etc/passwd");
        "read /etc/hostname": |_| read("/etc/hostname");
        "make a file in /tmp": |o| make(format!("/tmp/probe-{}", o.process));
        "make a file in /dev/shm": |o| make(format!("/dev/shm/probe-{}", o.process));
        "make a file among the models": |o| make(o.models.join("probe"));
        "write to a model": |o| write(o.models.join("model"));
        "remove a model": |o| of_io(fs::remove_file(o.models.join("model")));
        "link to a model": |o| of_io(fs::hard_link(o.models.join("model"), o.models.join("link")));
        "open a model to all": |o| {
            let path = path(&o.models.join("model"));
            call(libc::SYS_fchmodat, &[libc::AT_FDCWD.into(), address(&path), 0o666])
        };
        "make a device": |o| {
            let path = path(&o.models.join("device"));
            let mode = c_long::from(libc::S_IFBLK | 0o600);
            call(libc::SYS_mknodat, &[libc::AT_FDCWD.into(), address(&path), mode, 0xfe00])
        };
        "write /proc/sys/kernel/core_pattern": |_| write("/proc/sys/kernel/core_pattern");
        "write /proc/self/oom_score_adj": |_| write("/proc/self/oom_score_adj");
        "write /proc/self/comm": |_| write("/proc/self/comm");
    }
}

fn of_processes() -> Vec<Try> {
    tries! {
        "read the validator's environment": |o| read(of_process(o, "environ"));
        "read its command line": |o| read(of_process(o, "cmdline"));
        "read its maps": |o| read(of_process(o, "maps"));
        "open its memory": |o| of_io(File::open(of_process(o, "mem")));
        "list its descriptors": |o| list(of_process(o, "fd"));
        "look through its root": |o| list(of_process(o, "root/tmp"));
        "ask whether it lives": |o| call(libc::SYS_kill, &[o.process.into(), 0]);
        "signal it": |o| call(libc::SYS_kill, &[o.process.into(), libc::SIGCONT.into()]);
        "signal its thread": |o| {
            call(libc::SYS_tgkill, &[o.process.into(), o.process.into(), libc::SIGCONT.into()])
        };
        "signal all": |_| call(libc::SYS_kill, &[-1, 0]);
        "hold it by a descriptor": |o| call(libc::SYS_pidfd_open, &[o.process.into(), 0]);
        "trace it": |o| call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE.into(), o.process.into(), 0, 0]);
        "read its memory": |o| call(libc::SYS_process_vm_readv, &[o.process.into(), 0, 0, 0, 0, 0]);
        "read its limits": |o| {
            let mut limits = [0_u64; 2];
            let found = limits.as_mut_ptr() as c_long;
            call(libc::SYS_prlimit64, &[o.process.into(), libc::RLIMIT_NOFILE.into(), 0, found])
        };
        "set its limits": |o| {
            let limits = [512_u64, 512];
            let set = limits.as_ptr() as c_long;
            call(libc::SYS_prlimit64, &[o.process.into(), libc::RLIMIT_SIGPENDING.into(), set, 0])
        };
        "raise its own limits": |_| {
            let limits = [1_u64 << 20; 2];
            let set = limits.as_ptr() as c_long;
            call(libc::SYS_prlimit64, &[0, libc::RLIMIT_NOFILE.into(), set, 0])
        };
        "move it to one core": |o| {
            let cores = [1_u64];
            call(libc::SYS_sched_setaffinity, &[o.process.into(), 8, cores.as_ptr() as c_long])
        };
        "lower its priority": |o| call(libc::SYS_setpriority, &[0, o.process.into(), 0]);
        "set its scheduler": |o| {
            let parameters = [0_i32];
            let set = parameters.as_ptr() as c_long;
            call(libc::SYS_sched_setscheduler, &[o.process.into(), 0, set])
        };
        "fork": |_| forked(libc::SIGCHLD);
        "fork with users of its own": |_| forked(libc::SIGCHLD | libc::CLONE_NEWUSER);
        "fork by clone3": |_| call(libc::SYS_clone3, &[0, 0]);
        "run a program": |_| {
            let program = c"/bin/true".to_owned();
            let arguments = [address(&program), 0];
            let given = arguments.as_ptr() as c_long;
            call(libc::SYS_execve, &[address(&program), given, 0])
        };
        "run an open program": |_| call(libc::SYS_execveat, &[-1, 0, 0, 0, 0]);
        "call by the numbers of x32": |_| call(0x4000_0000 + libc::SYS_getpid, &[]);
    }
}

/// Makes a process by `clone`; the child ends at once.
fn forked(flags: i32) -> Tried {
    #[expect(unsafe_code, reason = "what the kernel refuses is probed")]
    // SAFETY: without memory in common, and with one thread, the child may do what the parent may.
    let child =
        Errno::result(unsafe { libc::syscall(libc::SYS_clone, c_long::from(flags), 0, 0, 0, 0) })?;
    if child == 0 {
        #[expect(unsafe_code, reason = "a child of a bare clone has no other end")]
        // SAFETY: it takes a number and does not return.
        unsafe {
            libc::_exit(0)
        }
    }
    let _ = waitpid(Pid::from_raw(child as i32), None);
    Ok(())
}

fn of_sockets() -> Vec<Try> {
    tries! {
        "socket: TCP": |_| socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        "socket: UDP": |_| socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        "socket: UDP over IPv6": |_| socket(libc::AF_INET6, libc::SOCK_DGRAM, 0);
        "socket: local, datagrams": |_| socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0);
        "socket: local, streams": |_| socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        "socket: netlink, routes": |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 0);
        "socket: netlink, filters": |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 12);
        "socket: packets": |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        "socket: machines": |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0);
        "socket: ciphers": |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0);
        "socketpair": |_| {
            let mut pair = [0_i32; 2];
            let kinds = [libc::AF_UNIX.into(), libc::SOCK_DGRAM.into(), 0];
            call(libc::SYS_socketpair, &[kinds[0], kinds[1], kinds[2], pair.as_mut_ptr() as c_long])
        };
        "send a notice to the supervisor": |o| {
            let name = [o.notify.as_os_str().as_encoded_bytes(), b"\0"].concat();
            reach(libc::SOCK_DGRAM, &name, libc::SYS_sendto)
        };
        "send to an abstract socket": |o| {
            reach(libc::SOCK_DGRAM, &abstract_name(&o.datagrams), libc::SYS_sendto)
        };
        "connect to an abstract socket": |o| {
            reach(libc::SOCK_STREAM, &abstract_name(&o.streams), libc::SYS_connect)
        };
    }
}

fn of_memory() -> Vec<Try> {
    tries! {
        "share memory": |_| {
            let shared = c_long::from(libc::MAP_SHARED | libc::MAP_ANONYMOUS);
            call(libc::SYS_mmap, &[0, 4096, 3, shared, -1, 0])
        };
        "run what it wrote": |_| {
            let private = c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            call(libc::SYS_mmap, &[0, 4096, 7, private, -1, 0])
        };
        "make memory with a name": |_| call(libc::SYS_memfd_create, &[address(&c"x".to_owned()), 0]);
        "take more memory than there is": |_| {
            let private = c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
            let taken = call(libc::SYS_mmap, &[0, 1 << 40, 3, private, -1, 0]);
            // That is how the kernel refuses it.
            taken.map_err(|errno| if errno == Errno::ENOMEM { Errno::EPERM } else { errno })
        };
    }
}
