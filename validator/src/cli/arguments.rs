//! The command line before clap sees it: `run` as the default command, `--config FILE` spliced in.

use std::{ffi::OsString, path::Path};

use clap::Command;
use shared::{Exit, Failure, file};

const MAX_BYTES: u64 = 1 << 20;

/// Accepts `--wallet-name` for `--wallet.name` and the like, in every subcommand.
pub(super) fn with_kebab_case(command: Command) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |sub| {
            sub.mut_args(|arg| match arg.get_long().map(kebab) {
                Some(alias) if arg.get_long() != Some(alias.as_str()) => arg.alias(alias),
                _ => arg,
            })
        })
    })
}

fn kebab(name: &str) -> String {
    name.trim_start_matches("--")
        .replace("._", "-")
        .replace(['.', '_'], "-")
}

/// Inserts `run` where no command is named, and the keys of `--config FILE` before the flags; a
/// flag given on the command line is not taken from the file.
pub(super) fn expand(
    command: &Command,
    mut arguments: Vec<OsString>,
) -> Result<Vec<OsString>, Failure> {
    let first = arguments.get(1).and_then(|first| first.to_str());
    let own = ["-h", "--help", "-V", "--version"];
    if first.is_some_and(|first| first.starts_with('-') && !own.contains(&first)) {
        arguments.insert(1, "run".into());
    }
    let Some(subcommand) = arguments
        .get(1)
        .and_then(|name| command.find_subcommand(name))
    else {
        return Ok(arguments);
    };
    let Some(path) = config_path(&arguments) else {
        return Ok(arguments);
    };
    let given: Vec<String> = arguments
        .iter()
        .filter_map(|argument| argument.to_str()?.strip_prefix("--"))
        .map(|argument| kebab(argument.split('=').next().unwrap_or(argument)))
        .collect();
    let mut inserted = Vec::new();
    for (key, values) in read_config(&path)? {
        if given.contains(&kebab(&key)) {
            continue;
        }
        let known = subcommand
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .find(|long| kebab(long) == kebab(&key));
        let Some(long) = known else {
            return Err(refused(
                &path,
                format_args!(
                    "key {key:?} is no flag of `validator {}`",
                    subcommand.get_name()
                ),
            )
            .hint(format_args!(
                "`validator {} --help` lists them",
                subcommand.get_name()
            )));
        };
        for value in values {
            inserted.push(match value {
                Some(value) => format!("--{long}={value}").into(),
                None => format!("--{long}").into(),
            });
        }
    }
    arguments.splice(2..2, inserted);
    Ok(arguments)
}

fn config_path(arguments: &[OsString]) -> Option<OsString> {
    arguments.iter().enumerate().find_map(|(index, argument)| {
        let text = argument.to_str()?;
        if text == "--config" {
            return arguments.get(index + 1).cloned();
        }
        text.strip_prefix("--config=").map(OsString::from)
    })
}

/// A flag with the values it has in the file; `None` is a switch that is on.
type Setting = (String, Vec<Option<String>>);

/// Reads TOML (by extension) or YAML with the keys of the flags, nested at the dots or not.
fn read_config(path: &OsString) -> Result<Vec<Setting>, Failure> {
    let bytes = file::read_limited(Path::new(path), MAX_BYTES)
        .map_err(|error| Failure::of(Exit::Config, &error))?
        .ok_or_else(|| refused(path, "there is no such file"))?;
    let text = String::from_utf8(bytes).map_err(|error| refused(path, error))?;
    let value: serde_yaml_ng::Value = if Path::new(path).extension() == Some("toml".as_ref()) {
        toml::from_str(&text).map_err(|error| refused(path, error))?
    } else {
        serde_yaml_ng::from_str(&text).map_err(|error| refused(path, error))?
    };
    let mut settings = Vec::new();
    flatten("", &value, &mut settings).map_err(|problem| refused(path, problem))?;
    Ok(settings)
}

fn flatten(
    key: &str,
    value: &serde_yaml_ng::Value,
    settings: &mut Vec<Setting>,
) -> Result<(), String> {
    use serde_yaml_ng::Value;
    let scalar = |value: &Value| match value {
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(format!("key {key:?} has a value that no flag takes")),
    };
    match value {
        Value::Mapping(entries) => {
            for (name, value) in entries {
                let name = name
                    .as_str()
                    .ok_or_else(|| format!("a key under {key:?} is not a text"))?;
                let path = if key.is_empty() {
                    name.to_owned()
                } else {
                    format!("{key}.{name}")
                };
                flatten(&path, value, settings)?;
            }
        }
        // What is off or not set is as if it were not there.
        Value::Null | Value::Bool(false) => {}
        Value::Bool(true) => settings.push((key.to_owned(), vec![None])),
        Value::Sequence(values) => {
            let values: Result<_, _> = values.iter().map(scalar).collect();
            settings.push((key.to_owned(), values?));
        }
        value => settings.push((key.to_owned(), vec![scalar(value)?])),
    }
    Ok(())
}

fn refused(path: &OsString, problem: impl std::fmt::Display) -> Failure {
    let path = Path::new(path).display();
    Failure::new(
        Exit::Config,
        format_args!("{path} is no configuration file"),
    )
    .because(problem)
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn command() -> Command {
        let switch = |name: &'static str| Arg::new(name).long(name).num_args(0);
        let run = Command::new("run")
            .arg(Arg::new("config").long("config"))
            .arg(Arg::new("name").long("wallet.name"))
            .arg(
                Arg::new("urls")
                    .long("subtensor.chain_endpoint")
                    .num_args(1),
            )
            .arg(switch("wandb.off"))
            .arg(switch("offline"));
        with_kebab_case(Command::new("validator").subcommands([run, Command::new("score")]))
    }

    fn expanded(arguments: &[&str]) -> Result<Vec<String>, Failure> {
        let arguments = arguments.iter().map(OsString::from).collect();
        let arguments = expand(&command(), arguments)?;
        Ok(arguments
            .into_iter()
            .map(|a| a.into_string().unwrap())
            .collect())
    }

    #[test]
    fn run_is_the_default_command() {
        let run = expanded(&["validator", "--wallet.name", "x"]).unwrap();
        assert_eq!(run, ["validator", "run", "--wallet.name", "x"]);
        for own in [
            &["validator", "score", "-"][..],
            &["validator", "--help"],
            &["validator"],
        ] {
            assert_eq!(expanded(own).unwrap(), own);
        }
    }

    #[test]
    fn kebab_case_is_another_spelling() {
        let arguments = ["validator", "run", "--wallet-name", "x", "--wandb-off"];
        let matches = command().try_get_matches_from(arguments).unwrap();
        let (_, run) = matches.subcommand().unwrap();
        assert_eq!(run.get_one::<String>("name").unwrap(), "x");
    }

    #[test]
    fn a_configuration_file_gives_flags_and_the_command_line_beats_it() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            file::write_atomic(&path, text.as_bytes()).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let yaml = write(
            "old.yml",
            "wallet:\n  name: a\nsubtensor:\n  chain_endpoint: [one, two]\n  _mock: false\n\
             offline: true\nwandb.off: false\nmodel_dir: null\n",
        );
        let run = expanded(&["validator", "--config", &yaml]).unwrap();
        let flags = [
            "validator",
            "run",
            "--wallet.name=a",
            "--subtensor.chain_endpoint=one",
            "--subtensor.chain_endpoint=two",
            "--offline",
            "--config",
            &yaml,
        ];
        assert_eq!(run, flags);
        let run = expanded(&["validator", "--config", &yaml, "--wallet-name=b"]).unwrap();
        assert!(!run.contains(&"--wallet.name=a".to_owned()), "{run:?}");

        let toml = write("new.toml", "offline = true\n[wallet]\nname = \"c\"\n");
        let config = format!("--config={toml}");
        let run = expanded(&["validator", &config]).unwrap();
        assert_eq!(run[2..4], ["--offline", "--wallet.name=c"]);

        let unknown = write("bad.toml", "walet = 1\n");
        let failure = expanded(&["validator", "--config", &unknown]).unwrap_err();
        assert_eq!(failure.exit(), Exit::Config);
        assert!(failure.to_string().contains("\"walet\""), "{failure}");
        assert!(expanded(&["validator", "--config", "/none.yml"]).is_err());
    }
}
