//! `adopt-pm2`: from a validator kept by pm2 and the Python updater to this supervisor.

use std::ffi::OsString;

use clap::Args;
use serde::Deserialize;
use shared::{Exit, Failure, term};

use crate::config::shown;

/// The Python updater.
const SCRIPT: &str = "start_validator.py";

#[derive(Debug, Clone, Args)]
pub(super) struct AdoptPm2Args {
    /// Name of the updater in pm2 [default: any that runs start_validator.py]
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Pm2Process {
    name: String,
    pm2_env: Pm2Environment,
}

#[derive(Debug, Deserialize)]
struct Pm2Environment {
    #[serde(default)]
    pm_exec_path: String,
    #[serde(default)]
    pm_cwd: String,
    #[serde(default)]
    args: Arguments,
}

/// pm2 keeps arguments as a list or as one line.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Arguments {
    List(Vec<String>),
    Line(String),
}

impl Default for Arguments {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// Prints the lines that move a pm2 installation over; nothing is changed.
pub(super) fn run(args: &AdoptPm2Args) -> Result<Exit, Failure> {
    let output = shared::process::blocking_command("pm2")
        .arg("jlist")
        .output()
        .map_err(|error| {
            Failure::new(Exit::Failed, "could not ask pm2")
                .caused_by(&error)
                .hint("is pm2 in PATH?")
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Notices of pm2 come before the list.
    let list = text
        .lines()
        .find(|line| line.starts_with('['))
        .unwrap_or("[]");
    let plan = plan(list, args.name.as_deref())?;
    term::line(plan);
    Ok(Exit::Ok)
}

fn plan(list: &str, name: Option<&str>) -> Result<String, Failure> {
    let processes: Vec<Pm2Process> = serde_json::from_str(list).map_err(|error| {
        Failure::new(Exit::BadInput, "pm2 said something odd").caused_by(&error)
    })?;
    let found = processes.iter().find(|process| match name {
        Some(name) => process.name == name,
        None => process.pm2_env.pm_exec_path.ends_with(SCRIPT) || process.args().contains(SCRIPT),
    });
    let Some(updater) = found else {
        let names: Vec<&str> = processes
            .iter()
            .map(|process| process.name.as_str())
            .collect();
        return Err(Failure::new(Exit::Failed, "pm2 runs no such updater")
            .because(format_args!("it runs: {}", names.join(", ")))
            .hint("name it: supervisor adopt-pm2 NAME"));
    };
    let words = crate::config::words(&updater.args());
    let mut child = "finetune-vali".to_owned();
    let mut flags: Vec<OsString> = Vec::new();
    let mut rest = words.iter().skip_while(|word| word.ends_with(SCRIPT));
    while let Some(word) = rest.next() {
        match word.strip_prefix("--pm2_name") {
            Some("") => child = rest.next().cloned().unwrap_or(child),
            Some(value) => value.trim_start_matches('=').clone_into(&mut child),
            None if word == "--" => {}
            None => flags.push(word.into()),
        }
    }
    let (name, cwd) = (&updater.name, &updater.pm2_env.pm_cwd);
    let flags = shown(&flags);
    Ok(format!(
        "# in the checkout of this program, not in {cwd}:\n\
         validator check --config-only {flags}\n\
         pm2 delete {name} {child}\n\
         pm2 start \"$(command -v supervisor)\" --interpreter none --name {name} --kill-timeout 150000 --no-treekill --stop-exit-codes 78 -- \
         --child-name {child} -- {flags}\n\
         pm2 save"
    ))
}

impl Pm2Process {
    fn args(&self) -> String {
        match &self.pm2_env.args {
            Arguments::List(list) => shown(&list.iter().map(Into::into).collect::<Vec<_>>()),
            Arguments::Line(line) => line.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_line_becomes_the_new_one() {
        let list = r#"[{"name":"web","pm2_env":{}},{"name":"updater","pm2_env":{
            "pm_exec_path":"/srv/old/scripts/start_validator.py","pm_cwd":"/srv/old",
            "args":["--pm2_name","vali","--wallet.name","cold key","--wandb.off"]}}]"#;
        insta::assert_snapshot!(plan(list, None).unwrap(), @r#"
        # in the checkout of this program, not in /srv/old:
        validator check --config-only --wallet.name 'cold key' --wandb.off
        pm2 delete updater vali
        pm2 start "$(command -v supervisor)" --interpreter none --name updater --kill-timeout 150000 --no-treekill --stop-exit-codes 78 -- --child-name vali -- --wallet.name 'cold key' --wandb.off
        pm2 save
        "#);
        let failure = plan(list, Some("nobody")).unwrap_err();
        assert!(failure.to_string().contains("it runs: web, updater"));
    }
}
