//! The installed programs are tried before anything depends on them.

use std::{ffi::OsString, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use nix::{sys::signal::Signal, unistd::getpgrp};

use super::state::Version;
use crate::{
    config::Config,
    error::{Blame, Fault},
    self_update::PROGRAM,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs the installed programs: each must name the new version, and the first must accept the
/// child's configuration.
pub(crate) fn run(config: &Config, version: &Version, own_args: &[OsString]) -> Result<(), Fault> {
    let test = SmokeTest { config, version };
    for program in &config.build.bins {
        test.names_its_version(program)?;
    }
    if config.build.bins.iter().any(|program| program == PROGRAM) {
        test.supervisor_understands(own_args)?;
    }
    test.accepts_the_configuration()
}

struct SmokeTest<'a> {
    config: &'a Config,
    version: &'a Version,
}

impl SmokeTest<'_> {
    fn names_its_version(&self, program: &str) -> Result<(), Fault> {
        let release = &self.version.release;
        let (status, output) = self.capture(program, &["--version".into()])?;
        if status.success() && output.contains(release.as_str()) {
            return Ok(());
        }
        let said = excerpt(&output, 200);
        Err(self.fault(format!(
            "`{program} --version` does not name {release}: {said}"
        )))
    }

    /// Lets a new supervisor read our arguments, configuration and state, as it will have to when
    /// it takes over. What it finds wrong with the world (exit code 1) is not its fault.
    fn supervisor_understands(&self, own_args: &[OsString]) -> Result<(), Fault> {
        let own = own_args.iter().skip_while(|arg| *arg == "run").cloned();
        let args: Vec<_> = ["doctor", "--offline"]
            .map(OsString::from)
            .into_iter()
            .chain(own)
            .collect();
        let (status, output) = self.capture(PROGRAM, &args)?;
        if matches!(status.code(), Some(0 | 1)) {
            return Ok(());
        }
        let said = excerpt(&output, 300);
        Err(self.fault(format!(
            "the new supervisor can't take over ({status}): {said}"
        )))
    }

    fn accepts_the_configuration(&self) -> Result<(), Fault> {
        let check = &self.config.build.check;
        let (Some(program), false) = (self.config.build.bins.first(), check.is_empty()) else {
            return Ok(());
        };
        let args: Vec<_> = check
            .iter()
            .map(Into::into)
            .chain(self.config.child.args.iter().cloned())
            .collect();
        let (status, output) = self.capture(program, &args)?;
        if status.success() {
            return Ok(());
        }
        let said = excerpt(&output, 300);
        let text = format!("`{program} {}` failed ({status}): {said}", check.join(" "));
        let mut fault = self.fault(text);
        fault.blame = match status.code() {
            Some(75) => Blame::Outside,
            Some(74) => Blame::Machine,
            // Whoever runs out of memory is not always to blame for that.
            None if status.signal() == Some(Signal::SIGKILL as i32) => Blame::Machine,
            _ => Blame::Code,
        };
        Err(fault)
    }

    fn fault(&self, text: String) -> Fault {
        Fault::new(Blame::Code, text).on(&self.version.commit)
    }

    fn capture(&self, program: &str, args: &[OsString]) -> Result<(ExitStatus, String), Fault> {
        let path = self
            .config
            .home
            .release(&self.version.release)
            .join(program);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut command = shared::process::command(&path);
            command
                .args(args)
                .current_dir(&self.config.child.cwd)
                .process_group(getpgrp().as_raw())
                .env_remove("NOTIFY_SOCKET");
            let output = tokio::time::timeout(LIMIT, command.output())
                .await
                .map_err(|_| self.fault(format!("{program} did not end within {LIMIT:?}")))?
                .map_err(|error| {
                    let text = format!("could not run {}: {error}", path.display());
                    Fault::new(Blame::Machine, text)
                })?;
            let text = [output.stdout, output.stderr].concat();
            Ok((output.status, String::from_utf8_lossy(&text).into_owned()))
        })
    }
}

fn excerpt(output: &str, chars: usize) -> String {
    output.trim().chars().take(chars).collect()
}
