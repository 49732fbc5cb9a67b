//! Flags beat the environment, the environment beats the file, the file beats the defaults.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, error::ErrorKind};
use shared::{Exit, Failure, version::Version};

const MAX_FILE: u64 = 1 << 20;
const CONFIG: &str = "config";

/// What a command line comes to.
pub(super) enum Parsed<T> {
    Args(Box<T>),
    Text(String),
}

/// Parses the command line with all its layers.
pub(super) fn parse<T: CommandFactory + FromArgMatches>(
    line: &[OsString],
    version: Version,
) -> Result<Parsed<T>, Failure> {
    let command = with_names(T::command().version(version.to_string()));
    let command = match config_path(&command, line) {
        Some(path) => with_file(command, &path)?,
        None => command,
    };
    match command
        .try_get_matches_from(line)
        .and_then(|matches| T::from_arg_matches(&matches))
    {
        Ok(args) => Ok(Parsed::Args(Box::new(args))),
        Err(error) if !error.use_stderr() => Ok(Parsed::Text(error.render().ansi().to_string())),
        Err(error) => Err(explain(&error, line)),
    }
}

/// Gives each option of `run` its environment variable and says its key in the file.
fn with_names(command: Command) -> Command {
    let named = |arg: Arg| {
        let Some(long) = arg.get_long().map(str::to_owned) else {
            return arg;
        };
        if matches!(long.as_str(), "help" | "version") {
            return arg;
        }
        let variable = format!("SUPERVISOR_{}", long.to_uppercase().replace('-', "_"));
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let arg = arg.env(variable).hide_env_values(true);
        if long == CONFIG {
            arg
        } else {
            arg.help(format!("{help} [file: {long}]"))
        }
    };
    let command = command.mut_args(named);
    command.mut_subcommands(|sub| match sub.get_name() {
        "worker" | "launch" => sub,
        _ => sub.mut_args(named),
    })
}

/// Finds `--config` before the file can lend its defaults.
fn config_path(command: &Command, line: &[OsString]) -> Option<PathBuf> {
    let matches = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(line)
        .ok()?;
    let of = |matches: &ArgMatches| {
        matches
            .try_get_one::<PathBuf>(CONFIG)
            .ok()
            .flatten()
            .cloned()
    };
    of(&matches).or_else(|| of(matches.subcommand()?.1))
}

fn with_file(mut command: Command, path: &Path) -> Result<Command, Failure> {
    let failure = |why: String| {
        Failure::new(Exit::Config, format!("could not use {}", path.display())).because(why)
    };
    let bytes = shared::file::read_limited(path, MAX_FILE)
        .map_err(|error| failure(crate::error::chain(&error)))?
        .ok_or_else(|| failure("no such file".into()))?;
    let text = String::from_utf8(bytes).map_err(|error| failure(error.to_string()))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| failure(error.to_string()))?;
    for (key, value) in table {
        let id = key.replace('-', "_");
        let known = id != CONFIG && has_arg(&command, &id);
        if !known {
            return Err(failure(format!("there is no option {key}")));
        }
        let values = strings(&value).ok_or_else(|| failure(format!("{key} has an odd value")))?;
        let default = |arg: Arg| {
            if arg.get_id() == id.as_str() {
                arg.default_values(values.clone())
            } else {
                arg
            }
        };
        command = command
            .mut_args(default)
            .mut_subcommands(|sub| sub.mut_args(default));
    }
    Ok(command)
}

fn has_arg(command: &Command, id: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == id)
}

fn strings(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(flag) => Some(vec![flag.to_string()]),
        toml::Value::Array(items) => items
            .iter()
            .map(|item| Some(strings(item)?.concat()))
            .collect(),
        _ => None,
    }
}

/// Turns clap's errors into ours.
fn explain(error: &clap::Error, line: &[OsString]) -> Failure {
    let text = error.render().to_string();
    let failure = Failure::new(Exit::Usage, text.trim_start_matches("error: ").trim_end());
    match right_line(error, line) {
        Some(right) => failure.hint(format!("what the child gets follows `--`: {right}")),
        None => failure,
    }
}

/// The old script gave every flag it did not know to the child; here `--` says where they begin.
fn right_line(error: &clap::Error, line: &[OsString]) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument || line.iter().any(|word| word == "--") {
        return None;
    }
    let unknown = error.get(clap::error::ContextKind::InvalidArg)?.to_string();
    let at = line
        .iter()
        .position(|word| word.to_string_lossy().starts_with(unknown.as_str()))?;
    let (ours, theirs) = (line.get(1..at)?, line.get(at..)?);
    Some(format!(
        "supervisor {} -- {}",
        crate::config::shown(ours),
        crate::config::shown(theirs)
    ))
}
