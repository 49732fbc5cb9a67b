//! The installed programs are tried before anything depends on them.

use std::{
    ffi::OsString, fs, io::Read, os::unix::process::ExitStatusExt, path::PathBuf,
    process::ExitStatus, time::Duration,
};

use nix::{sys::signal::Signal, unistd::getpgrp};

use super::{build_environment, state::Version};
use crate::{
    config::{Config, words},
    error::{Blame, Fault},
    self_update::PROGRAM,
};

const LIMIT: Duration = Duration::from_secs(60);
/// How a program that names its version is asked about its configuration.
pub(crate) const USUAL_CHECK: &str = "check --config-only";
/// How a program ends by a fault of its own code.
const CRASHES: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGABRT,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGBUS,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];
/// Programs are searched in pieces of this size, in bytes.
const CHUNK: usize = 1 << 16;

/// Runs the installed programs: each must name the new version, and the first must accept the
/// child's configuration.
pub(crate) fn run(config: &Config, version: &Version, own_args: &[OsString]) -> Result<(), Fault> {
    let test = SmokeTest {
        config,
        version,
        limit: LIMIT,
    };
    for program in &config.build.bins {
        if test.promises_a_version(program)? {
            test.names_its_version(program)?;
        }
    }
    if config.build.bins.iter().any(|program| program == PROGRAM) {
        test.supervisor_understands(own_args)?;
    }
    test.accepts_the_configuration()
}

struct SmokeTest<'a> {
    config: &'a Config,
    version: &'a Version,
    limit: Duration,
}

/// How a program ended, and what it said.
struct Ended {
    status: ExitStatus,
    output: String,
}

impl SmokeTest<'_> {
    /// A program that names its version holds the commit it was built from. One that does not would
    /// take `--version` for anything, such as its start.
    fn promises_a_version(&self, program: &str) -> Result<bool, Fault> {
        let mut file = fs::File::open(self.path(program))?;
        Ok(contains(&mut file, self.version.release.as_bytes())?)
    }

    fn names_its_version(&self, program: &str) -> Result<(), Fault> {
        let release = &self.version.release;
        let ended = self.capture(program, &["--version".into()])?;
        if ended.status.success() && ended.output.contains(release.as_str()) {
            return Ok(());
        }
        let said = excerpt(&ended.output, 200);
        let text = format!("`{program} --version` does not name {release}: {said}");
        Err(self.judge(&ended, text))
    }

    /// Lets a new supervisor read our arguments, configuration and state, as it will have to when
    /// it takes over. What it finds wrong with the world (exit code 1) is not its fault.
    fn supervisor_understands(&self, own_args: &[OsString]) -> Result<(), Fault> {
        let own = own_args.iter().filter(|arg| *arg != "run").cloned();
        let args: Vec<_> = ["doctor", "--offline"]
            .map(OsString::from)
            .into_iter()
            .chain(own)
            .collect();
        let ended = self.capture(PROGRAM, &args)?;
        if matches!(ended.status.code(), Some(0 | 1)) {
            return Ok(());
        }
        let said = excerpt(&ended.output, 300);
        let text = format!(
            "the new supervisor can't take over ({}): {said}",
            ended.status
        );
        Err(self.judge(&ended, text))
    }

    fn accepts_the_configuration(&self) -> Result<(), Fault> {
        let Some(program) = self.config.build.bins.first() else {
            return Ok(());
        };
        let check = match &self.config.build.check {
            Some(check) => check.clone(),
            // A program of our kind can be asked, any other has to be told how.
            None if self.promises_a_version(program)? => words(USUAL_CHECK),
            None => Vec::new(),
        };
        if check.is_empty() {
            return Ok(());
        }
        let args: Vec<_> = check
            .iter()
            .map(Into::into)
            .chain(self.config.child.args.iter().cloned())
            .collect();
        let ended = self.capture(program, &args)?;
        if ended.status.success() {
            return Ok(());
        }
        let said = excerpt(&ended.output, 300);
        let (check, status) = (check.join(" "), ended.status);
        Err(self.judge(
            &ended,
            format!("`{program} {check}` failed ({status}): {said}"),
        ))
    }

    /// Says whose fault an end is.
    fn judge(&self, ended: &Ended, text: String) -> Fault {
        let blame = match (ended.status.code(), ended.status.signal()) {
            (Some(75), _) => Blame::Outside,
            // 126 and 127: it could not be started, or the loader found no library for it.
            (Some(74 | 126 | 127), _) => Blame::Machine,
            // Whoever is killed, for want of memory or by a limit, is not to blame for that.
            (None, Some(signal)) if !CRASHES.iter().any(|crash| *crash as i32 == signal) => {
                Blame::Machine
            }
            _ => Blame::Code,
        };
        Fault::new(blame, text).on(&self.version.commit)
    }

    fn path(&self, program: &str) -> PathBuf {
        let release = self.config.home.release(&self.version.release);
        release.join(program)
    }

    fn capture(&self, program: &str, args: &[OsString]) -> Result<Ended, Fault> {
        let path = self.path(program);
        let machine = |text: String| Fault::new(Blame::Machine, text).on(&self.version.commit);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut command = shared::process::command(&path);
            command
                .args(args)
                .current_dir(&self.config.child.cwd)
                .process_group(getpgrp().as_raw())
                .env_clear()
                .envs(build_environment::without_secrets(&self.config.build));
            let output = tokio::time::timeout(self.limit, command.output())
                .await
                .map_err(|_| {
                    // A machine that is too slow, or a program that takes its arguments for others.
                    let text = format!("{program} did not end within {:?}", self.limit);
                    machine(text).hint("see --check")
                })?
                .map_err(|error| machine(format!("could not run {}: {error}", path.display())))?;
            let text = [output.stdout, output.stderr].concat();
            Ok(Ended {
                status: output.status,
                output: String::from_utf8_lossy(&text).into_owned(),
            })
        })
    }
}

/// Returns whether a file holds these bytes.
fn contains(file: &mut impl Read, wanted: &[u8]) -> std::io::Result<bool> {
    let mut buffer = vec![0; CHUNK];
    let mut kept = 0;
    loop {
        let read = file.read(&mut buffer[kept..])?;
        let held = kept + read;
        if buffer[..held].windows(wanted.len()).any(|at| at == wanted) {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
        // It may begin at the end of this chunk.
        let tail = held.min(wanted.len() - 1);
        buffer.copy_within(held - tail..held, 0);
        kept = tail;
    }
}

fn excerpt(output: &str, chars: usize) -> String {
    output.trim().chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use shared::file;

    use super::*;
    use crate::config::tests::config;

    #[test]
    fn bytes_are_found_wherever_they_are() {
        for at in [0, 1, CHUNK - 3, CHUNK, 3 * CHUNK - 5] {
            let mut bytes = vec![b'.'; at];
            bytes.extend(b"needle");
            assert!(contains(&mut bytes.as_slice(), b"needle").unwrap(), "{at}");
            bytes.pop();
            assert!(!contains(&mut bytes.as_slice(), b"needle").unwrap(), "{at}");
        }
    }

    /// Runs the smoke test of a program that is a shell script.
    fn tested(script: &str, limit: Duration) -> Result<(), Fault> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.build.bins = vec!["app".into()];
        config.child.cwd = dir.path().to_owned();
        let version = Version {
            commit: "c0ffee".into(),
            release: "c0ffee".into(),
            source: "c0ffee".into(),
            summary: String::new(),
            signer: None,
            build: String::new(),
            local: Vec::new(),
            left_out: Vec::new(),
        };
        let path = config.home.release(&version.release).join("app");
        // Written by another process: one that another test forks meanwhile would hold the file open, and
        // what is open for writing can't be run.
        let written = dir.path().join("script");
        file::write_atomic(&written, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let copied = shared::process::blocking_command("cp")
            .args([&written, &path])
            .status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let test = SmokeTest {
            config: &config,
            version: &version,
            limit,
        };
        if test.promises_a_version("app")? {
            test.names_its_version("app")?;
        }
        test.accepts_the_configuration()
    }

    #[test]
    fn only_what_a_program_says_itself_is_its_fault() {
        let version = "[ \"$1\" != --version ] || { echo c0ffee; exit; }\n";
        tested(&format!("{version}exit 0"), LIMIT).unwrap();
        // It knows neither `--version` nor a check, and would run for ever.
        tested("exec sleep 1000", LIMIT).unwrap();
        for (end, blame) in [
            ("exit 1", Blame::Code),
            ("exit 78", Blame::Code),
            ("kill -SEGV $$", Blame::Code),
            ("kill -ABRT $$", Blame::Code),
            ("exit 74", Blame::Machine),
            ("exit 126", Blame::Machine),
            ("exit 127", Blame::Machine),
            ("kill -KILL $$", Blame::Machine),
            ("kill -XCPU $$", Blame::Machine),
            ("exec sleep 1000", Blame::Machine),
            ("exit 75", Blame::Outside),
        ] {
            // Only what never ends is waited for.
            let hangs = end.contains("sleep");
            let limit = if hangs {
                Duration::from_millis(300)
            } else {
                LIMIT
            };
            let early = tested(&format!("# c0ffee\n{end}"), limit).unwrap_err();
            assert_eq!(early.blame, blame, "{end} of --version: {early}");
            if !hangs {
                let fault = tested(&format!("{version}{end}"), limit).unwrap_err();
                assert_eq!(fault.blame, blame, "{end}: {fault}");
            }
        }
    }
}
