//! The other side of `sandbox`: a process of its own raises the walls around itself, then becomes a program of the build.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use nix::{
    libc,
    sched::CloneFlags,
    sys::prctl,
    unistd::{ForkResult, dup2_stdin, geteuid},
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::{Deserialize, Serialize};
use shared::{
    Exit, Failure,
    causes::one_line,
    fork::{follow, fork, wait},
    namespaces::Namespaces,
    process::replacement,
};

use super::view;

/// The hidden subcommand of this process.
pub(crate) const SUBCOMMAND: &str = "confine";
/// What it is told is shorter, in bytes.
const MAX_BYTES: u64 = 1 << 26;

/// A wall, and whether it stands.
pub(crate) type Wall = (String, Result<String, String>);

/// What a build may see and change.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Confinement {
    pub(super) hidden: Vec<PathBuf>,
    /// May be below what is hidden, as the others.
    pub(super) readable: Vec<PathBuf>,
    pub(super) writable: Vec<PathBuf>,
    /// What variables of the operator's name for builds: sockets, of which landlock knows nothing.
    pub(super) named: Vec<PathBuf>,
    pub(super) devices: Vec<PathBuf>,
    pub(super) network: bool,
}

/// Reads from standard input what is allowed, says on standard output which walls stand, and becomes the program of
/// `line`. Call it while this process has one thread.
pub(crate) fn run(line: &[OsString]) -> Result<Exit, Failure> {
    let (program, args) = line
        .split_first()
        .ok_or_else(|| Failure::new(Exit::Usage, "no program to confine"))?;
    let failed = |error: io::Error| {
        let text = format!("could not start {} behind walls", program.display());
        Failure::new(Exit::Machine, text).caused_by(&error)
    };
    raise().map_err(failed)?;
    Err(failed(replacement(program).args(args).exec()))
}

fn raise() -> io::Result<()> {
    let mut text = Vec::new();
    io::stdin().take(MAX_BYTES).read_to_end(&mut text)?;
    dup2_stdin(File::open("/dev/null")?)?;
    let confinement: Confinement = serde_json::from_slice(&text)?;
    let walls = confinement.raise()?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(&walls)?)?;
    stdout.flush()
}

impl Confinement {
    fn raise(&self) -> io::Result<Vec<Wall>> {
        // No program of the build regains what is given up here.
        prctl::set_no_new_privs()?;
        let namespaces = self.separate()?;
        let powers = drop_capabilities();
        let files = self.restrict_files().map_err(|error| error.to_string());
        let files = files.and_then(|status| match status {
            RulesetStatus::FullyEnforced => {
                Ok("homes, state and other processes hidden".to_owned())
            }
            RulesetStatus::PartiallyEnforced => Ok("as far as this kernel can".to_owned()),
            RulesetStatus::NotEnforced => Err("this kernel has no landlock".to_owned()),
        });
        let calls = forbidding(self.network).and_then(|program| {
            seccompiler::apply_filter(&program).map_err(|error| error.to_string())
        });
        let files = files.and_then(|how| powers.map(|()| how));
        let network = calls.and_then(|()| {
            if self.network {
                Err("left on".to_owned())
            } else {
                Ok("off".to_owned())
            }
        });
        let walls = [
            ("files", files),
            ("namespaces", namespaces),
            ("network", network),
        ];
        Ok(walls.map(|(wall, stands)| (wall.to_owned(), stands)).into())
    }

    /// Goes on in a process of its own, in namespaces where nothing that is hidden has a name. Returns why that can't
    /// be, as a container and some systems' policies have it.
    fn separate(&self) -> io::Result<Result<String, String>> {
        let mut world = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
        if !self.network {
            world |= CloneFlags::CLONE_NEWNET;
        }
        // In a user namespace root would lose its power over files of others, and some checkouts are such.
        if !geteuid().is_root() {
            world |= CloneFlags::CLONE_NEWUSER;
        }
        let folder = env::current_dir()?;
        let hide = || {
            let writable = [&self.writable, &self.named, &self.devices];
            let writable = writable.into_iter().flatten();
            view::hide(&self.hidden, self.readable.iter(), writable)?;
            // By its name: the open one is still the folder below.
            env::set_current_dir(&folder)
        };
        let namespaces =
            match Namespaces::possible(&[world | CloneFlags::CLONE_NEWPID, world], hide) {
                Ok(namespaces) => namespaces,
                Err(error) => return Ok(Err(one_line(&error))),
            };
        namespaces.enter()?;
        hide()?;
        if namespaces.of_processes() {
            go_on_inside()?;
        }
        Ok(Ok(format!(
            "{}; homes and state out of sight",
            namespaces.words()
        )))
    }

    fn restrict_files(&self) -> Result<RulesetStatus, RulesetError> {
        // What later kernels add is added here once it was tried there.
        let abi = ABI::V6;
        let read = AccessFs::from_read(abi);
        // A disk by another name would be a way around.
        let nodes: BitFlags<AccessFs> = AccessFs::MakeBlock | AccessFs::MakeChar;
        let write = AccessFs::from_all(abi) & !nodes;
        let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(&self.readable, read))?
            .add_rules(path_beneath_rules(&self.writable, write))?
            .add_rules(path_beneath_rules(&self.devices, device))?
            .restrict_self()?;
        Ok(status.ruleset)
    }
}

/// Goes on in the namespace of processes. Its first one waits there: with it the kernel kills all others.
fn go_on_inside() -> io::Result<()> {
    if let ForkResult::Parent { child } = fork()? {
        follow(wait(child));
    }
    Namespaces::show_processes()?;
    if let ForkResult::Parent { child } = fork()? {
        follow(wait(child));
    }
    Ok(())
}

/// What root may keep for a build: files of any owner.
const KEPT: [Capability; 4] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
];

/// Drops the other powers of root. With `CAP_PERFMON` the kernel asks no security module before it shows
/// the environment of any process (`may_access_mm` in kernel/fork.c). They do not come back with another
/// program, because `no_new_privs` is set (capabilities(7)).
fn drop_capabilities() -> Result<(), String> {
    let kept = CapsHashSet::from(KEPT);
    // Effective first: it can't hold what is not permitted.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        let held = caps::read(None, set).map_err(|error| error.to_string())?;
        let rest = held.intersection(&kept).copied().collect();
        caps::set(None, set, &rest).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Calls that no build needs and that lead around the walls or into other processes.
const FORBIDDEN: [libc::c_long; 28] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
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
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
];

fn forbidding(network: bool) -> Result<BpfProgram, String> {
    let more = if network {
        None
    } else {
        Some(libc::SYS_socket)
    };
    let rules: BTreeMap<i64, _> = FORBIDDEN
        .into_iter()
        .chain(more)
        .map(|call| (call, Vec::new()))
        .collect();
    let arch = env::consts::ARCH.try_into();
    let filter = arch.and_then(|arch| {
        SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::EACCES as u32),
            arch,
        )
    });
    filter
        .and_then(TryInto::try_into)
        .map_err(|error: seccompiler::BackendError| error.to_string())
}
