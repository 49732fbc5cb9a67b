//! Walls around the worker, raised before it reads anything a stranger wrote.
//!
//! The worker keeps what it needs to compute: threads, memory up to a limit, its device files,
//! the directories of models and tokenizers (to read). It loses the rest of the file system, the
//! network and the right to start programs. A kernel without one of the walls is no error: what
//! stands is reported and logged.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use model::protocol::Wall;
use nix::{
    libc,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Where libraries, drivers and what they look up at start are.
const SYSTEM: [&str; 8] = [
    "/usr", "/lib", "/lib64", "/bin", "/opt", "/etc", "/proc", "/sys",
];

const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

/// Open files at the same time; a model has at most a few dozen shards.
const MAX_FILES: u64 = 1024;

/// What the worker may use.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Directories and files to read.
    pub readable: Vec<PathBuf>,
    /// Directories of libraries beyond the usual ones.
    pub libraries: Vec<PathBuf>,
    /// Memory in bytes; nine tenths of the machine's if not given.
    pub memory: Option<u64>,
}

/// Raises all walls around this process. Call it while the process has one thread: what landlock
/// forbids, it forbids the calling thread and those it starts later.
pub fn enter(allowed: &Allowed) -> Vec<Wall> {
    vec![
        wall("limits", limit_resources(allowed.memory)),
        wall("landlock", restrict_files(allowed)),
        wall("seccomp", restrict_calls()),
    ]
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

fn restrict_files(allowed: &Allowed) -> Result<String, String> {
    let status = landlock(allowed).map_err(|error| error.to_string())?;
    match status {
        RulesetStatus::FullyEnforced => Ok("files, TCP, signals".to_owned()),
        RulesetStatus::PartiallyEnforced => Ok("what this kernel knows of it".to_owned()),
        RulesetStatus::NotEnforced => Err("this kernel does not have it".to_owned()),
    }
}

fn landlock(allowed: &Allowed) -> Result<RulesetStatus, RulesetError> {
    // What later kernels add is added here once it was tried there.
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let graphics = device_files().unwrap_or_default();
    let devices = DEVICES.iter().map(PathBuf::from).chain(graphics);
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
        .add_rules(path_beneath_rules(&allowed.readable, read))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// The files of GPUs; `dxg` is what Windows lends to Linux within it.
fn device_files() -> io::Result<Vec<PathBuf>> {
    let named = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("nvidia") || name == "dri" || name == "dxg"
    };
    let paths = fs::read_dir("/dev")?.map(|entry| entry.map(|entry| entry.path()));
    let paths: Vec<PathBuf> = paths.collect::<io::Result<_>>()?;
    Ok(paths.into_iter().filter(|path| named(path)).collect())
}

/// Calls that no computation needs: starting programs, looking into other processes, the network,
/// and roads around the walls.
const FORBIDDEN: [libc::c_long; 28] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
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

fn restrict_calls() -> Result<String, String> {
    let program = forbidding_program().map_err(|error| error.to_string())?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())?;
    Ok("no programs, no network".to_owned())
}

fn forbidding_program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    // A GPU driver may ask the kernel things through a netlink or local socket; with bind and
    // connect gone neither leads anywhere.
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
