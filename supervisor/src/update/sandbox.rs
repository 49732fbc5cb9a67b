//! Walls around a build: its scripts and macros are code of the commit, and run as the operator's user.
//!
//! # Mechanism
//!
//! landlock lets what is started from a thread read all of the file system except home folders, our own
//! state, the operator's checkout, and whatever the child's arguments and our environment name; write
//! nothing but the target directory; and signal and inspect only what is of the build itself. seccomp
//! takes away new sockets of any kind while code of the commit is compiled, and calls that lead around
//! walls. Root loses most of its capabilities. All are raised by one thread, which starts cargo and ends: the worker itself stays outside.
//!
//! # Limits
//!
//! Sources are fetched with the network on. Fetching runs no build script, but cargo asks the compiler
//! for its version, and a commit's `.cargo/config.toml` may name another program as that: it could talk
//! to the world about what it sees, which is not secret by then. Names and sizes of files stay visible
//! (landlock has no rule for stat(2)). Where a kernel lacks a wall, builds go on without it; `doctor` and
//! the log say so. A new release is run with the child's rights a moment later: these walls are for those
//! who may commit and not be reviewed in time, not for a release that is accepted.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use shared::file;

use super::{
    build_environment::{self, BuildStage},
    visible::{ALL_DEVICES, entries_beside, visible},
};
use crate::config::{BuildConfig, BuildSandbox, Config};

const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];
/// What cargo writes below its own folder while it only builds.
const CARGO_LOCKS: [&str; 3] = [".package-cache", ".package-cache-mutate", ".global-cache"];
/// Cargo's name for a folder beside the target directory, see the Cargo book on `build.build-dir`.
const BUILD_DIR: &str = "CARGO_BUILD_BUILD_DIR";
const CARGO_CREDENTIALS: [&str; 2] = ["credentials", "credentials.toml"];
/// A wall, and whether it stands.
pub(crate) type Wall = (&'static str, Result<String, String>);

/// What a build may see and change.
#[derive(Debug)]
pub(super) struct Sandbox {
    kind: BuildSandbox,
    readable: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    network: bool,
    variables: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

impl Sandbox {
    /// Makes the sandbox of a build; `network` says whether it is to have that.
    pub(super) fn of(
        config: &Config,
        stage: BuildStage,
        network: bool,
    ) -> Result<Self, file::FileError> {
        let build = &config.build;
        let mut variables = build_environment::of_build(build, stage);
        if build.sandbox == BuildSandbox::Off {
            return Ok(Self {
                kind: build.sandbox,
                readable: Vec::new(),
                writable: Vec::new(),
                network: true,
                variables,
            });
        }
        let home = env::home_dir().unwrap_or_else(|| PathBuf::from("/root"));
        let folder = |name: &str, usual: &str| {
            let told = variables.iter().find(|(known, _)| known == name);
            told.map_or_else(|| home.join(usual), |(_, told)| PathBuf::from(told))
        };
        let (cargo, rustup) = (
            folder("CARGO_HOME", ".cargo"),
            folder("RUSTUP_HOME", ".rustup"),
        );
        let parts = variables.iter().find(|(name, _)| name == BUILD_DIR);
        let parts = parts.map(|(_, told)| PathBuf::from(told));
        // Others are below the source, or begin with a placeholder of cargo's.
        let parts = parts.filter(|parts| parts.is_absolute());
        // Outside, it would be a folder that everybody shares.
        let scratch = scratch(build);
        file::create_dir(&scratch)?;
        let mut set = |name: &str, value: &Path| {
            variables.retain(|(known, _)| known != name);
            variables.push((name.into(), value.into()));
        };
        set("CARGO_HOME", &cargo);
        set("RUSTUP_HOME", &rustup);
        set("TMPDIR", &scratch);
        let mut writable = vec![build.target_dir.clone()];
        writable.extend(build.paths.iter().cloned());
        // Cargo keeps there what programs are made of, if the operator says so. It makes a folder that is
        // missing by way of one beside it, which it may not write.
        if let Some(parts) = parts {
            file::create_dir(&parts)?;
            writable.push(parts);
        }
        if stage == BuildStage::Fetch || network {
            for part in ["registry", "git"] {
                // Where it is not ours to write, everything may be vendored.
                let _ = file::create_dir(&cargo.join(part));
                writable.push(cargo.join(part));
            }
            // A toolchain that the commit asks for is installed.
            writable.push(rustup.clone());
        }
        if stage == BuildStage::Compile {
            // Programs that look for their settings there find none, instead of a wall.
            let empty = scratch.join("home");
            file::create_dir(&empty)?;
            set("HOME", &empty);
        }
        for name in CARGO_LOCKS {
            let lock = cargo.join(name);
            let _ = fs::File::options().append(true).create(true).open(&lock);
            writable.push(lock);
        }
        let mut readable = visible(config, &home);
        readable.extend(entries_beside(
            &cargo,
            &CARGO_CREDENTIALS.map(|name| cargo.join(name)),
        ));
        readable.push(rustup);
        if stage == BuildStage::Fetch {
            // Proxies and addresses; no credentials.
            readable.extend([".gitconfig", ".config/git/config"].map(|file| home.join(file)));
        }
        Ok(Self {
            kind: build.sandbox,
            readable,
            writable,
            network: network || build.keeps_network(),
            variables,
        })
    }

    /// Starts a program behind the walls, and says which of them stand.
    pub(super) fn spawn(
        &self,
        command: &mut Command,
        variables: &[(&str, &str)],
    ) -> std::io::Result<(Child, Vec<Wall>)> {
        command
            .env_clear()
            .envs(self.variables.iter().cloned())
            .envs(variables.iter().copied());
        thread::scope(|scope| {
            let behind = scope.spawn(|| {
                let walls = self.raise();
                Ok((command.spawn()?, walls))
            });
            behind
                .join()
                .unwrap_or_else(|_| Err(std::io::Error::other("the walls fell down")))
        })
    }

    /// Raises the walls around the calling thread and what it starts.
    fn raise(&self) -> Vec<Wall> {
        if self.kind == BuildSandbox::Off {
            let off = || Err("switched off by --build-sandbox".to_owned());
            return vec![("files", off()), ("network", off())];
        }
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
        vec![("files", files), ("network", network)]
    }

    fn restrict_files(&self) -> Result<RulesetStatus, RulesetError> {
        // What later kernels add is added here once it was tried there.
        let abi = ABI::V6;
        let read = AccessFs::from_read(abi);
        // A disk by another name would be a way around.
        let nodes: BitFlags<AccessFs> = AccessFs::MakeBlock | AccessFs::MakeChar;
        let write = AccessFs::from_all(abi) & !nodes;
        let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
        let devices = DEVICES.iter().map(PathBuf::from).chain(gpus());
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(&self.readable, read))?
            .add_rules(path_beneath_rules(&self.writable, write))?
            .add_rules(path_beneath_rules(devices, device))?
            .restrict_self()?;
        Ok(status.ruleset)
    }
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
/// program, because landlock sets `no_new_privs` (capabilities(7)).
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

/// Returns the folder of temporary files of builds.
pub(super) fn scratch(build: &BuildConfig) -> PathBuf {
    build.target_dir.join("tmp")
}

/// What build scripts ask for the kind of GPU.
fn gpus() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(ALL_DEVICES).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"nvidia"))
        .map(|entry| entry.path())
}

/// Calls that no build needs and that lead around the walls or into other processes.
const FORBIDDEN: [libc::c_long; 24] = [
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

/// Says which walls stand on this machine, by raising them around a program that does nothing.
pub(crate) fn walls(config: &Config) -> Result<Vec<Wall>, String> {
    let sandbox =
        Sandbox::of(config, BuildStage::Compile, false).map_err(|error| error.to_string())?;
    let mut command = shared::process::blocking_command("true");
    let (mut child, walls) = sandbox
        .spawn(&mut command, &[])
        .map_err(|error| format!("could not start `true`: {error}"))?;
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() {
        Ok(walls)
    } else {
        Err(format!("`true` failed behind them ({status})"))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::config::tests::config;

    /// Runs a script behind the walls and returns what it said.
    fn said(config: &Config, script: &str) -> String {
        let sandbox = Sandbox::of(config, BuildStage::Compile, false).unwrap();
        let mut command = shared::process::blocking_command("sh");
        command
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let (child, _) = sandbox.spawn(&mut command, &[]).unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn a_build_writes_its_target_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        if walls(&config).unwrap()[0].1.is_err() {
            return e2e::skip("this kernel has no landlock");
        }
        file::create_dir(&config.repo.join(".git/objects")).unwrap();
        file::write_atomic(&config.home.journal(), b"state").unwrap();
        let wallet = dir.path().join("wallet");
        file::write_atomic(&wallet, b"mnemonic").unwrap();
        let target = config.build.target_dir.join("made");
        let script = format!(
            "cat {} {} /root/* ~/.*; echo in > {} && echo made; echo out > {}; echo \"$HOME$TMPDIR\"",
            wallet.display(),
            config.home.journal().display(),
            target.display(),
            dir.path().join("outside").display(),
        );
        config.child.args = vec!["--wallet".into(), wallet.clone().into()];
        let text = said(&config, &script);
        let own = config.build.target_dir.join("tmp").display().to_string();
        assert_eq!(text, format!("made\n{own}/home{own}"));
        assert!(target.exists() && !dir.path().join("outside").exists());
        // Not a file that nobody hides.
        config.child.args.clear();
        let text = said(&config, &format!("cat {}", wallet.display()));
        assert_eq!(text, "mnemonic");
    }
}
