//! The wall around files, TCP and signals: landlock.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, RestrictSelfAttr as _, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::{allowed::Allowed, gpu::Gpu};

/// Where libraries, drivers and what they look up at start are.
const SYSTEM: [&str; 6] = ["/usr", "/lib", "/lib64", "/opt", "/proc", "/sys"];

/// What the dynamic linker and the drivers read in `/etc`, which has secrets too.
const SETTINGS: [&str; 7] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nvidia",
    "/etc/OpenCL",
    "/etc/alternatives",
];

const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

/// Where a driver finds the threads of this process by number, to name them.
pub(super) const OWN_THREADS: &str = "/proc/self/task";

pub(super) fn restrict(allowed: &Allowed, gpus: &[PathBuf], gpu: Gpu) -> Result<String, String> {
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
    let cache = if gpu == Gpu::Starting {
        let make = AccessFs::MakeReg | AccessFs::MakeDir | AccessFs::Refer;
        read | write | make | AccessFs::RemoveFile | AccessFs::RemoveDir
    } else {
        read
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
        .add_rules(path_beneath_rules(SETTINGS, read))?
        .add_rules(path_beneath_rules(
            &allowed.libraries,
            read | AccessFs::Execute,
        ))?
        .add_rules(path_beneath_rules(devices, device))?
        .add_rules(path_beneath_rules(threads, write))?
        .add_rules(path_beneath_rules(cached.into_iter().flatten(), cache))?
        .add_rules(path_beneath_rules(&allowed.readable, read))?
        // Before the driver starts nothing but this thread runs; afterwards the driver's threads do.
        .all_threads(gpu != Gpu::Starting)?
        .restrict_self()?;
    Ok(status.ruleset)
}
