//! Walls around the worker, raised before it reads anything a stranger wrote.
//!
//! The worker keeps what it needs to compute: threads, memory up to a limit, its device files,
//! the directories of models and tokenizers (to read). It loses the rest of the file system, the
//! network and the right to start programs. A kernel without one of the walls is not an error:
//! what stands is reported and logged.
//!
//! # The driver of a GPU
//!
//! Since release 570, `cuInit` of the NVIDIA driver names its threads by writing
//! `/proc/self/task/TID/comm`, and binds and listens on an abstract socket,
//! `@cuda-uvmfd-NS-PID`. If either is refused, it answers `CUDA_ERROR_OPERATING_SYSTEM`. Therefore
//! a worker that may use a GPU raises its walls in two steps, both before the first request:
//!
//! 1. All walls, with three gaps for the driver (`Gpu::Starting`): writing below
//!    `/proc/self/task`, `bind` and `listen`, and writing the cache of compiled kernels. Behind
//!    them the device is opened and the kernels are compiled.
//! 2. The gaps are closed (`Gpu::Running`): a second layer of landlock, a second seccomp filter.
//!    Without a GPU the device files go too (`Gpu::None`).
//!
//! Starting the driver before any wall would need no gap, but landlock holds only the calling
//! thread and those it starts later: the driver's own threads, which live as long as the worker,
//! would stay outside for good. As it is, where the kernel can restrict all threads at once (landlock
//! ABI 8) they lose the gaps too; before it they keep the gaps in files of step 1, and no more. The
//! seccomp filters hold every thread. What a gap lets through is little: neither landlock nor
//! seccomp can look at the name of a socket, but a socket can only be local or netlink, landlock
//! lets none appear in the file system, and no stream can be connected. (A datagram needs no
//! connection: local sockets that anybody may write to, such as the system's log, can be written to.)
//! All that is compiled is compiled in step 1, so that nothing has a reason to write the cache later.
//! Before ABI 8 that is not a wall: a model that runs code of its own on a thread of the driver could
//! still leave compiled code there for the next worker.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::Device;
use landlock::{
    ABI, Access, AccessFs, AccessNet, RestrictSelfAttr as _, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use model::{Fault, protocol::Wall};
use nix::{
    libc,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::device::{self, DeviceSpec};

/// Where libraries, drivers and what they look up at start are.
const SYSTEM: [&str; 8] = [
    "/usr", "/lib", "/lib64", "/bin", "/opt", "/etc", "/proc", "/sys",
];

const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

/// Open files at the same time; a model has at most a few dozen shards.
const MAX_FILES: u64 = 1024;

/// Where a driver finds the threads of this process by number, to name them.
const OWN_THREADS: &str = "/proc/self/task";

/// What the worker may use.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Directories and files to read.
    pub readable: Vec<PathBuf>,
    /// Directories of libraries beyond the usual ones.
    pub libraries: Vec<PathBuf>,
    /// Where the driver keeps the kernels it compiled.
    pub compute_cache: Option<PathBuf>,
    /// Memory in bytes; nine tenths of the machine's if not given.
    pub memory: Option<u64>,
}

/// What a GPU's driver needs at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gpu {
    /// There is none, or it is not used.
    None,
    Starting,
    /// The device is open, the kernels are compiled.
    Running,
}

/// What came of [`enter`].
#[derive(Debug)]
pub struct Entered {
    /// The device, or why there is none.
    pub device: Result<Device, Fault>,
    /// Why the CPU computes on a machine with a GPU, if it does.
    pub unused_gpu: Option<String>,
    pub walls: Vec<Wall>,
}

/// Raises all walls around this process and opens the device behind them. Call it while the
/// process has one thread: what landlock forbids, it forbids the calling thread and those it
/// starts later.
pub fn enter(spec: &DeviceSpec, allowed: &Allowed) -> Entered {
    // None can be found once the walls stand.
    let gpus = device::files();
    let files = |gpu| restrict_files(allowed, &gpus, gpu);
    let limits = limit_resources(allowed.memory);
    let (opened, files, calls) = if spec.may_be_cuda() {
        if let Some(folder) = &allowed.compute_cache
            && let Err(error) = fs::create_dir_all(folder)
        {
            let folder = folder.display();
            tracing::warn!(%error, %folder, "the GPU's kernels are compiled at every start");
        }
        // Rules are for inodes, and those of /proc last only as long as somebody holds them.
        let _held = fs::File::open(OWN_THREADS);
        let (first_files, first_calls) = (files(Gpu::Starting), restrict_calls(Gpu::Starting));
        let opened = spec.open();
        let gpu = match &opened {
            Ok(opened) if opened.device.is_cuda() => Gpu::Running,
            _ => Gpu::None,
        };
        let calls = first_calls.and_then(|_| restrict_calls(gpu));
        (opened, first_files.and_then(|_| files(gpu)), calls)
    } else {
        let (files, calls) = (files(Gpu::None), restrict_calls(Gpu::None));
        (spec.open(), files, calls)
    };
    let unused_gpu = opened.as_ref().ok().and_then(|o| o.unused_gpu(&gpus));
    Entered {
        device: opened.map(|opened| opened.device),
        unused_gpu,
        walls: vec![
            wall("limits", limits),
            wall("landlock", files),
            wall("seccomp", calls),
        ],
    }
}

fn wall(name: &str, stands: Result<String, String>) -> Wall {
    Wall {
        name: name.to_owned(),
        stands,
    }
}

fn limit_resources(memory: Option<u64>) -> Result<String, String> {
    let memory = memory.or_else(nine_tenths_of_memory);
    let memory = memory.ok_or_else(|| "the size of memory is not known".to_owned())?;
    let limit = |resource, most: u64| {
        let (_, hard) = getrlimit(resource).map_err(|errno| errno.to_string())?;
        let most = most.min(hard);
        setrlimit(resource, most, most).map_err(|errno| errno.to_string())
    };
    limit(Resource::RLIMIT_CORE, 0)?;
    limit(Resource::RLIMIT_NOFILE, MAX_FILES)?;
    // Not the address space: a GPU driver reserves terabytes of it.
    limit(Resource::RLIMIT_DATA, memory)?;
    Ok(format!(
        "{} MiB of memory, {MAX_FILES} files, no core dumps",
        memory >> 20
    ))
}

fn nine_tenths_of_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total
        .trim()
        .trim_end_matches("kB")
        .trim_end()
        .parse()
        .ok()?;
    Some(kibibytes * 1024 / 10 * 9)
}

fn restrict_files(allowed: &Allowed, gpus: &[PathBuf], gpu: Gpu) -> Result<String, String> {
    let status = landlock(allowed, gpus, gpu).map_err(|error| error.to_string())?;
    match status {
        RulesetStatus::FullyEnforced => Ok("files, TCP, signals".to_owned()),
        RulesetStatus::PartiallyEnforced => Ok("what this kernel knows of it".to_owned()),
        RulesetStatus::NotEnforced => Err("this kernel does not have it".to_owned()),
    }
}

fn landlock(allowed: &Allowed, gpus: &[PathBuf], gpu: Gpu) -> Result<RulesetStatus, RulesetError> {
    // What later kernels add is added here once it was tried there.
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let write = AccessFs::WriteFile | AccessFs::Truncate;
    let cache = match gpu {
        Gpu::Starting => {
            let make = AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::Refer;
            read | write | make | AccessFs::RemoveFile | AccessFs::RemoveDir
        }
        Gpu::Running | Gpu::None => read,
    };
    let gpus = if gpu == Gpu::None { &[] } else { gpus };
    let threads = (gpu == Gpu::Starting).then_some(OWN_THREADS);
    let cached = (gpu != Gpu::None).then_some(&allowed.compute_cache);
    let devices = DEVICES
        .iter()
        .map(Path::new)
        .chain(gpus.iter().map(PathBuf::as_path));
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read | AccessFs::Execute))?
        .add_rules(path_beneath_rules(
            &allowed.libraries,
            read | AccessFs::Execute,
        ))?
        .add_rules(path_beneath_rules(devices, device))?
        .add_rules(path_beneath_rules(threads, write))?
        .add_rules(path_beneath_rules(cached.into_iter().flatten(), cache))?
        .add_rules(path_beneath_rules(&allowed.readable, read))?
        // Nothing but this thread runs yet in step 1; in step 2 the threads of the driver do.
        .all_threads(gpu != Gpu::Starting)?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Calls that no computation needs: starting programs, looking into other processes, the network,
/// and roads around the walls.
const FORBIDDEN: [libc::c_long; 26] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_kexec_load,
];

/// What a driver needs besides while it starts.
const FORBIDDEN_AFTER_START: [libc::c_long; 2] = [libc::SYS_bind, libc::SYS_listen];

fn restrict_calls(gpu: Gpu) -> Result<String, String> {
    let program = forbidding_program(gpu).map_err(|error| error.to_string())?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())?;
    Ok("no programs, no network".to_owned())
}

fn forbidding_program(gpu: Gpu) -> Result<BpfProgram, seccompiler::BackendError> {
    let later = match gpu {
        Gpu::Starting => &[][..],
        Gpu::None | Gpu::Running => &FORBIDDEN_AFTER_START,
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN
        .iter()
        .chain(later)
        .map(|&call| (call, Vec::new()))
        .collect();
    // A GPU driver may ask the kernel things through a netlink or local socket; without connect
    // neither leads anywhere.
    let not = |family: libc::c_int| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family as u64)
    };
    let other = SeccompRule::new(vec![not(libc::AF_UNIX)?, not(libc::AF_NETLINK)?])?;
    rules.insert(libc::SYS_socket, vec![other]);
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}
