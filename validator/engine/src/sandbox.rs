//! Walls around the worker, raised before it reads anything a stranger wrote.
//!
//! The worker keeps what it needs to compute: threads, memory up to a limit, its device files, the directories of
//! models and tokenizers (to read). It loses the rest: other files, the network, programs and processes, privileges,
//! the environment, descriptors of others. Each wall is raised where the kernel has it; which stand is reported. A
//! worker without those of `REQUIRED` meets no model, unless it is told to.
//!
//! | wall | what | module |
//! |---|---|---|
//! | environment | only the variables of a list | `environment` |
//! | descriptors | only the three standard ones | `process` |
//! | namespaces | its own users, processes, network, shared memory, mounts; a guard outside | `guard` |
//! | cgroup | memory, shared memory included, and threads | `cgroup` |
//! | capabilities | none, and none to be gained | `privileges` |
//! | limits | memory, files, core dumps | `resources` |
//! | landlock | files, TCP, signals | `files` |
//! | seccomp | system calls of a list | `calls` |
//!
//! # The driver of a GPU
//!
//! Since release 570, `cuInit` of the NVIDIA driver names its threads by writing
//! `/proc/self/task/TID/comm`, and binds and listens on an abstract socket,
//! `@cuda-uvmfd-NS-PID`. If either is refused, it answers `CUDA_ERROR_OPERATING_SYSTEM`. Therefore
//! a worker that may use a GPU raises landlock and seccomp in two steps, both before the first request:
//!
//! 1. With three gaps for the driver (`Gpu::Starting`): writing below `/proc/self/task`, `bind` and
//!    `listen`, and writing the cache of compiled kernels. Behind them the device is opened.
//! 2. The gaps are closed (`Gpu::Running`): a second layer of landlock, a second seccomp filter.
//!    Without a GPU the device files go too (`Gpu::None`).
//!
//! Starting the driver before any wall would need no gap, but landlock holds only the calling
//! thread and those it starts later: the driver's own threads, which live as long as the worker,
//! would stay outside for good. As it is, where the kernel can restrict all threads at once (landlock
//! ABI 8) they lose the gaps too; before it they keep the gaps in files of step 1, and no more. The
//! seccomp filters hold every thread. What a gap lets through is little: the socket lies in a network
//! of its own, and nothing can be sent or connected. The cache is a copy for this one worker, see
//! `compile`: what a model could leave there, no other process runs.

mod allowed;
mod calls;
mod cgroup;
mod compile;
mod environment;
mod files;
mod gpu;
mod guard;
mod privileges;
mod process;
mod resources;

use std::{ffi::OsString, fs, io, path::Path};

use candle_core::Device;
use model::{
    Fault, MachineFaultKind,
    protocol::{COMPUTE_CACHE, Wall},
};
use shared::cgroup::Delegation;

use self::{cgroup::Group, gpu::Gpu};
use crate::{
    cpu,
    device::{self, DeviceSpec},
    memory,
};

pub use self::{
    allowed::{Allowed, search_path},
    compile::limit_time,
};

/// Without these, a model that runs code of its own could read the key and send it.
const REQUIRED: [&str; 2] = ["landlock", "seccomp"];

/// What came of [`enter`].
#[derive(Debug)]
pub struct Entered {
    /// The devices, or why there are none.
    pub devices: Result<Vec<Device>, Fault>,
    /// Why the CPU computes on a machine with a GPU, if it does.
    pub unused_gpu: Option<String>,
    pub walls: Vec<Wall>,
}

/// The walls raised so far.
#[derive(Debug)]
pub struct Walls {
    raised: Vec<Wall>,
    without: Vec<String>,
    /// Whether this process is in a user namespace of its own.
    own_users: bool,
}

impl Walls {
    /// Walls around this very process, for programs of ours that meet no stranger's model.
    pub fn here(allowed: &Allowed) -> Self {
        Self {
            raised: Vec::new(),
            without: allowed.without.clone(),
            own_users: false,
        }
    }

    fn wants(&self, name: &str) -> bool {
        !self.without.iter().any(|without| without == name)
    }

    /// Raises a wall, unless it is to be left out.
    fn raise(&mut self, name: &str, raise: impl FnOnce() -> Result<String, String>) {
        let stands = if self.wants(name) {
            raise()
        } else {
            Err("left out as asked for".to_owned())
        };
        let name = name.to_owned();
        self.raised.push(Wall { name, stands });
    }

    /// Says why no model may be met behind these walls.
    fn lacking(&self) -> Option<String> {
        let required = |wall: &&Wall| REQUIRED.contains(&wall.name.as_str());
        let mut required = self.raised.iter().filter(required);
        let (name, why) =
            required.find_map(|wall| Some((&wall.name, wall.stands.as_ref().err()?)))?;
        Some(format!(
            "a model that runs code of its own could reach what is this user's, for the wall {name} does not \
             stand: {why}; --no-sandbox lets models run all the same"
        ))
    }
}

/// Starts this program anew with an empty environment; a worker that may use a GPU finds its kernels compiled.
/// `compile` are the arguments with which it compiles them, `prepared` those that keep it from coming here again.
/// Returns why it could not be started.
pub fn restart(
    spec: &DeviceSpec,
    cache: Option<&Path>,
    compile: &[OsString],
    mut prepared: Vec<OsString>,
) -> io::Error {
    let cache = cache.filter(|_| spec.may_be_cuda());
    let copy = cache.and_then(|cache| {
        let copy = compile::copy_of(cache, &spec.to_string(), compile);
        let cache = cache.display();
        copy.inspect_err(|error| {
            tracing::warn!(%error, %cache, "the GPU's kernels are compiled at every start");
        })
        .ok()
    });
    let set = copy.as_ref().map(|copy| (COMPUTE_CACHE, copy.as_os_str()));
    if let Some((_, copy)) = set {
        prepared.extend(["--compute-cache".into(), copy.to_owned()]);
    }
    environment::restart(&prepared, set.as_slice())
}

/// Goes on in a process of its own, with nothing of the one that started it but the three pipes. Call it first
/// of all: this process has one thread, and no descriptor of its own yet.
pub fn separate(allowed: &Allowed) -> Walls {
    let mut walls = Walls::here(allowed);
    walls.raise("environment", environment::verify);
    walls.raise("descriptors", || {
        let closed = process::close_others().map_err(words);
        closed.map(|()| "the three standard ones".to_owned())
    });
    let memory = allowed
        .memory
        .or_else(memory::most_of_host)
        .unwrap_or(u64::MAX);
    let group = Delegation::here().and_then(|delegation| Group::new(&delegation, memory));
    let wanted = walls.wants("cgroup");
    let split = guard::split(
        walls.wants("namespaces"),
        group.as_ref().ok().filter(|_| wanted),
        allowed.compute_cache.as_deref(),
    );
    walls.raise("cgroup", || match (&group, &split) {
        (Err(error), _) | (Ok(_), Err(error)) => Err(words(error)),
        (Ok(group), Ok(split)) => split.joined.as_ref().map(|()| group.words()).map_err(words),
    });
    walls.raise("namespaces", || {
        let namespaces = split
            .as_ref()
            .map_err(words)?
            .namespaces
            .as_ref()
            .map_err(words)?;
        Ok(namespaces.words())
    });
    if let Ok(split) = &split {
        walls.own_users = split
            .namespaces
            .as_ref()
            .is_ok_and(|namespaces| namespaces.of_users());
    }
    walls
}

/// Raises all other walls around this process and opens the device behind them. Call it while the
/// process has one thread: what landlock forbids, it forbids the calling thread and those it
/// starts later.
pub fn enter(mut walls: Walls, spec: &DeviceSpec, allowed: &Allowed) -> Entered {
    // Neither can be found out once the walls stand.
    cpu::prepare();
    let gpus = device::files();
    let own_users = walls.own_users;
    walls.raise("limits", || resources::limit(allowed.memory, own_users));
    walls.raise("capabilities", privileges::drop_all);
    let (wants_files, wants_calls) = (walls.wants("landlock"), walls.wants("seccomp"));
    let left_out = || Err("left out as asked for".to_owned());
    let files = |gpu| {
        if wants_files {
            files::restrict(allowed, &gpus, gpu)
        } else {
            left_out()
        }
    };
    let calls = |gpu| {
        if wants_calls {
            calls::restrict(gpu)
        } else {
            left_out()
        }
    };
    let (opened, files, calls) = if spec.may_be_cuda() {
        // Rules are for inodes, and those of /proc last only as long as somebody holds them.
        let _held = fs::File::open(files::OWN_THREADS);
        let (first_files, first_calls) = (files(Gpu::Starting), calls(Gpu::Starting));
        let opened = spec.open();
        let gpu = match &opened {
            Ok(opened) if opened.devices.iter().any(Device::is_cuda) => Gpu::Running,
            _ => Gpu::None,
        };
        // Files first: the second filter refuses the calls that raise walls.
        let files = first_files.and_then(|_| files(gpu));
        (opened, files, first_calls.and_then(|_| calls(gpu)))
    } else {
        let (files, calls) = (files(Gpu::None), calls(Gpu::None));
        (spec.open(), files, calls)
    };
    walls.raise("landlock", || files);
    walls.raise("seccomp", || calls);
    let unused_gpu = opened.as_ref().ok().and_then(|o| o.unused_gpu(&gpus));
    let lacking = walls.lacking().filter(|_| !allowed.no_sandbox);
    let devices = match lacking {
        Some(why) => Err(Fault::machine(MachineFaultKind::Spawn, why)),
        None => opened.map(|opened| opened.devices),
    };
    Entered {
        devices,
        unused_gpu,
        walls: walls.raised,
    }
}

fn words(error: impl ToString) -> String {
    error.to_string()
}
