//! The layers of a command line: flags beat the environment, the environment beats the file of
//! `--config`, the file beats the defaults.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, builder::BoolishValueParser};

use super::{FullPath, Hint, settings_file};
use crate::{Exit, Failure};

/// The flag that names the file. Commands that have it take the environment and the file; others
/// take the variables that their flags name, and nothing else.
const CONFIG: &str = "config";

/// Flags whose variables count for every command.
const EVERYWHERE: [&str; 2] = ["log", "log_json"];

/// What a command line comes to.
#[derive(Debug)]
pub enum Parsed<T> {
    /// Something to do.
    Command(T),
    /// Help or the version.
    Text(String),
}

/// Parses a command line with all its layers.
///
/// A flag `--some.name` of PROGRAM is the variable `PROGRAM_SOME_NAME`, unless it names another,
/// and the key `some.name` of the file; `.`, `_` and `-` may stand for each other.
pub fn parse<T: FromArgMatches>(
    command: Command,
    line: &[OsString],
    hint: Hint,
) -> Result<Parsed<T>, Failure> {
    let line = &subcommand_first(&command, line);
    let prefix = command.get_name().to_uppercase();
    let mut command = each_arg(command, &|level, arg| {
        let arg = respelled(arg);
        if is_layered(level) || EVERYWHERE.contains(&arg.get_id().as_str()) {
            named(&prefix, arg)
        } else {
            arg
        }
    });
    if let Some(path) = config_path(&command, line) {
        command = with_file(command, &path)?;
    }
    match command
        .try_get_matches_from(line)
        .and_then(|matches| T::from_arg_matches(&matches))
    {
        Ok(parsed) => Ok(Parsed::Command(parsed)),
        Err(error) if !error.use_stderr() => Ok(Parsed::Text(error.render().ansi().to_string())),
        Err(error) => {
            let text = error.render().to_string();
            let text = text.trim_start_matches("error: ").trim_end();
            let failure = Failure::new(Exit::Usage, text);
            Err(match hint(&error, line) {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
    }
}

/// Changes the flags of a command and of all its subcommands.
fn each_arg(command: Command, change: &impl Fn(&Command, Arg) -> Arg) -> Command {
    let level = command.clone();
    command
        .mut_args(|arg| change(&level, arg))
        .mut_subcommands(|sub| each_arg(sub, change))
}

/// Returns whether a command takes the environment and the file.
fn is_layered(command: &Command) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == CONFIG)
}

/// Lets a flag be written with dashes between its words.
fn respelled(arg: Arg) -> Arg {
    match arg.get_long().map(|long| (long.to_owned(), kebab(long))) {
        Some((long, other)) if other != long => arg.alias(other),
        _ => arg,
    }
}

/// Gives a flag its variable. The help says the rule once instead of each name.
fn named(prefix: &str, arg: Arg) -> Arg {
    let Some(long) = arg.get_long().filter(|_| arg.get_env().is_none()) else {
        return arg;
    };
    let variable = format!("{prefix}_{}", kebab(long).replace('-', "_").to_uppercase());
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .env(variable)
            .hide_env(true)
            .value_parser(BoolishValueParser::new()),
        ArgAction::Set | ArgAction::Append => arg.env(variable).hide_env(true),
        _ => arg,
    }
}

/// Returns a name with `-` between its words.
fn kebab(name: &str) -> String {
    name.replace("._", "-").replace(['.', '_'], "-")
}

/// Lets options stand before a subcommand: they are moved behind its name, and mean there what they
/// mean to it. A program whose options need no subcommand (`supervisor --child-name x`) would take them
/// for its own.
fn subcommand_first(command: &Command, line: &[OsString]) -> Vec<OsString> {
    let mut line = line.to_vec();
    let mut at = 1;
    while let Some(word) = line.get(at).and_then(|word| word.to_str()) {
        let Some(flag) = word.strip_prefix('-') else {
            if command.find_subcommand(word).is_some() {
                line[1..=at].rotate_right(1);
            }
            break;
        };
        if word == "--" {
            break;
        }
        let takes_next = !word.contains('=')
            && command
                .get_arguments()
                .find(|arg| is_called(arg, flag))
                .is_some_and(|arg| arg.get_action().takes_values());
        at += if takes_next { 2 } else { 1 };
    }
    line
}

/// Returns whether a flag, without its first dash, is this argument.
fn is_called(arg: &Arg, flag: &str) -> bool {
    match flag.strip_prefix('-') {
        Some(long) => names(arg).any(|name| kebab(name) == kebab(long)),
        None => arg
            .get_short()
            .is_some_and(|short| flag == short.to_string()),
    }
}

/// Finds `--config` before the file can lend its defaults. Only the command that was asked for counts:
/// one without it, such as what a program calls of itself, must work whatever a file holds.
fn config_path(command: &Command, line: &[OsString]) -> Option<PathBuf> {
    fn of(matches: &ArgMatches) -> Option<PathBuf> {
        match matches.subcommand() {
            Some((_, sub)) => of(sub),
            None => matches
                .try_get_one::<FullPath>(CONFIG)
                .ok()
                .flatten()
                .cloned()
                .map(PathBuf::from),
        }
    }
    let lenient = command.clone().ignore_errors(true);
    of(&lenient.try_get_matches_from(line).ok()?)
}

/// Makes the values of the file the defaults of the flags that have their names.
fn with_file(mut command: Command, path: &Path) -> Result<Command, Failure> {
    for (key, values) in settings_file::read(path)? {
        let asked = kebab(&key);
        let fits = |arg: &Arg| names(arg).any(|name| kebab(name) == asked);
        if asked == CONFIG || !any_arg(&command, &fits) {
            return Err(settings_file::refused(path)
                .because(format_args!("there is no option {key}"))
                .hint("its keys are the flags of the command, without the leading dashes"));
        }
        command = each_arg(command, &|level, arg| {
            if is_layered(level) && fits(&arg) {
                arg.default_values(values.clone()).required(false)
            } else {
                arg
            }
        });
    }
    Ok(command)
}

/// Iterates over the long names of a flag.
fn names(arg: &Arg) -> impl Iterator<Item = &str> {
    arg.get_long()
        .into_iter()
        .chain(arg.get_all_aliases().into_iter().flatten())
}

fn any_arg(command: &Command, fits: &impl Fn(&Arg) -> bool) -> bool {
    command.get_arguments().any(fits) || command.get_subcommands().any(|sub| any_arg(sub, fits))
}

#[cfg(test)]
mod tests {
    use clap::{Args, CommandFactory as _, Parser, Subcommand};

    use super::*;
    use crate::file;

    #[derive(Debug, PartialEq, Parser)]
    #[command(name = "layered")]
    struct Program {
        #[command(subcommand)]
        command: Order,
    }

    /// Its options need no subcommand.
    #[derive(Debug, PartialEq, Parser)]
    #[command(name = "layered")]
    struct Plain {
        #[command(subcommand)]
        command: Option<Order>,
        #[command(flatten)]
        run: Run,
    }

    #[derive(Debug, PartialEq, Subcommand)]
    enum Order {
        Run(Run),
        Score {
            #[arg(long)]
            offline: bool,
        },
    }

    #[derive(Debug, PartialEq, Args)]
    struct Run {
        #[arg(long)]
        config: Option<FullPath>,
        #[arg(long = "wallet.name", default_value = "default")]
        name: String,
        #[arg(long = "subtensor.chain_endpoint", value_delimiter = ',')]
        endpoints: Vec<String>,
        /// Set wherever tests run.
        #[arg(long, env = "CARGO_PKG_NAME")]
        package: Option<String>,
        #[arg(long)]
        offline: bool,
    }

    fn parsed(words: &[&str]) -> Result<Order, Failure> {
        let line: Vec<OsString> = ["layered"]
            .iter()
            .chain(words)
            .map(OsString::from)
            .collect();
        match parse::<Program>(Program::command(), &line, |_, _| None)? {
            Parsed::Command(program) => Ok(program.command),
            Parsed::Text(text) => panic!("{text}"),
        }
    }

    fn run(words: &[&str]) -> Run {
        match parsed(words).unwrap() {
            Order::Run(run) => run,
            order @ Order::Score { .. } => panic!("{order:?}"),
        }
    }

    /// Writes a file; returns the flag that names it.
    fn config(dir: &Path, name: &str, text: &str) -> String {
        let path = dir.join(name);
        file::write_atomic(&path, text.as_bytes()).unwrap();
        format!("--config={}", path.display())
    }

    #[test]
    fn flags_beat_the_environment_beats_the_file_beats_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = config(
            dir.path(),
            "new.toml",
            "offline = true\npackage = \"of the file\"\n[wallet]\nname = \"c\"\n",
        );
        let usual = run(&["run"]);
        assert_eq!((usual.name.as_str(), usual.offline), ("default", false));
        let led = run(&["run", &file]);
        assert_eq!((led.name.as_str(), led.offline), ("c", true));
        assert_eq!(led.package.as_deref(), Some("shared"));
        let told = run(&["run", &file, "--wallet.name", "d", "--package=p"]);
        assert_eq!(
            (told.name.as_str(), told.package.as_deref()),
            ("d", Some("p"))
        );
    }

    #[test]
    fn the_python_validators_yaml_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = config(
            dir.path(),
            "old.yml",
            "wallet:\n  name: a\nsubtensor:\n  chain_endpoint: [one, two]\n\
             offline: false\npackage: null\n",
        );
        let led = run(&["run", &file]);
        assert_eq!((led.name.as_str(), led.offline), ("a", false));
        assert_eq!(led.endpoints, ["one", "two"]);
    }

    #[test]
    fn dots_and_dashes_stand_for_each_other() {
        assert_eq!(run(&["run", "--wallet-name", "x"]).name, "x");
        assert_eq!(run(&["run", "--wallet.name", "x"]).name, "x");
    }

    #[test]
    fn a_key_that_is_no_flag_and_a_file_that_is_not_there_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = config(dir.path(), "bad.toml", "walet = 1\n");
        let failure = parsed(&["run", &file]).unwrap_err();
        assert_eq!(failure.exit(), Exit::Config);
        assert!(failure.to_string().contains("no option walet"), "{failure}");
        let failure = parsed(&["run", "--config=/none.yml"]).unwrap_err();
        assert!(failure.to_string().contains("/none.yml"), "{failure}");
    }

    #[test]
    fn options_may_stand_before_a_subcommand_and_are_its_own() {
        let plain = |words: &[&str]| {
            let line: Vec<OsString> = ["layered"]
                .iter()
                .chain(words)
                .map(OsString::from)
                .collect();
            match parse::<Plain>(Plain::command(), &line, |_, _| None)? {
                Parsed::Command(plain) => Ok(plain),
                Parsed::Text(text) => panic!("{text}"),
            }
        };
        let before = plain(&["--wallet.name", "run", "--offline", "run"]).unwrap();
        assert_eq!(
            before,
            plain(&["run", "--wallet.name=run", "--offline"]).unwrap()
        );
        assert_eq!(plain(&["--wallet-name", "run"]).unwrap().command, None);
        let score = plain(&["--offline", "score"]).unwrap().command;
        assert_eq!(score, Some(Order::Score { offline: true }));
        let failure: Failure = plain(&["--wallet.name=x", "score"]).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
    }

    #[test]
    fn a_command_that_takes_no_file_reads_none() {
        let line = ["layered", "score"].map(OsString::from);
        let mut command = Plain::command();
        command = command.mut_arg(CONFIG, |config| config.default_value("/none.toml"));
        parse::<Plain>(command.clone(), &line, |_, _| None).unwrap();
        let failure = parse::<Plain>(command, &line[..1], |_, _| None).unwrap_err();
        assert_eq!(failure.exit(), Exit::Config);
    }

    #[test]
    fn what_clap_refuses_is_a_failure_of_usage() {
        let failure = parsed(&["run", "--no-such"]).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(
            failure.heading().starts_with("unexpected argument"),
            "{failure}"
        );
    }
}
