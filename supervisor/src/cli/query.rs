//! What all commands share that talk to a running supervisor.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use shared::{Exit, Failure, cli::FullPath, file::FileError, term};

use super::configure::state_dir;
use crate::{
    control::{self, Reply, Request},
    home::Home,
};

#[derive(Debug, Clone, Args)]
pub(super) struct Which {
    /// File of the supervisor's options (TOML), for the two below
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<FullPath>,
    /// Name of the child [default: the only one there is]
    #[arg(long, alias = "child_name", value_name = "NAME")]
    pub(super) child_name: Option<String>,
    /// Folder of all state [default: $XDG_STATE_HOME/supervisor]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

/// A question or an order.
#[derive(Debug, Clone, Args)]
pub(super) struct Query {
    #[command(flatten)]
    pub(super) which: Which,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Finds the child that is meant: the one named, else the only one there is.
pub(super) fn home(which: &Which) -> Result<Home, Failure> {
    let folder = state_dir(which.state_dir.as_deref())?;
    if let Some(name) = &which.child_name {
        return Ok(Home::of(&folder, name));
    }
    let names = names(&folder).map_err(|error| Failure::of(Exit::Machine, &error))?;
    match names.as_slice() {
        [name] => Ok(Home::of(&folder, name)),
        [] => Err(Failure::new(
            Exit::Failed,
            format!("no supervisor has run in {}", folder.display()),
        )
        .hint("see --state-dir")),
        _ => Err(Failure::new(
            Exit::Usage,
            format!("there are several: {}", names.join(", ")),
        )
        .hint("say which with --child-name")),
    }
}

/// Returns the names of children that a supervisor was ever started for; none where there is no such folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.map_err(FileError::on("read", folder))?,
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("lock").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

pub(super) fn ask(home: &Home, request: &Request) -> Result<Reply, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    let path = home.control_socket();
    runtime
        .block_on(control::ask(&path, request))
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
                Exit::Failed,
                format!("no supervisor of {} is running", home.child_name()),
            ),
            _ => Failure::new(Exit::Failed, "the supervisor did not answer").caused_by(&error),
        })
}

/// Gives an order and prints what came of it.
pub(super) fn order(query: &Query, request: &Request) -> Result<Exit, Failure> {
    let reply = ask(&home(&query.which)?, request)?;
    if query.json {
        term::json(&reply);
    }
    match reply {
        Reply::Done(text) if !query.json => term::line(text),
        Reply::Refused(text) => return Err(Failure::new(Exit::Refused, text)),
        Reply::Done(_) | Reply::Status(_) | Reply::Check(_) => {}
    }
    Ok(Exit::Ok)
}

/// The first letters of a commit, as people know it.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
