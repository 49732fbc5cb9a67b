//! What only git itself knows: filters, sparse checkouts and indexes, its rules of line ends. A
//! machine without the program gets `None`.
//!
//! Nothing is written to the checkout: the index is a copy, and new objects go into our clone.
//! Filters of the operator's configuration run, as `git status` runs them. Git and what it starts
//! are in the worker's group, and end with it at the latest.

use std::{
    collections::BTreeSet,
    fs::{self, File, FileTimes},
    io::{self, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use git2::{Oid, Repository};
use nix::unistd::getpgrp;

use super::clone::TEMPORARY;
use crate::error::{Blame, Fault};

/// Most that is read of an answer, in bytes.
const MAX_ANSWER: u64 = 1 << 22;
/// Most that is shown of a complaint, in bytes.
const MAX_COMPLAINT: u64 = 1 << 10;
/// What would lead git somewhere else; see `git rev-parse --local-env-vars`.
const MISLEADING: [&str; 9] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CONFIG_PARAMETERS",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
];

/// Lists the unmerged files of the checkout.
pub(crate) fn unmerged(checkout: &Repository) -> Result<Option<BTreeSet<String>>, Fault> {
    let Some(folder) = checkout.workdir() else {
        return Ok(Some(BTreeSet::new()));
    };
    let answer = ask(git(
        folder,
        &["ls-files", "--unmerged", "--full-name", "-z"],
    ))?;
    Ok(answer.map(|answer| {
        let entries = answer.split(|byte| *byte == 0);
        // MODE ID STAGE, a tab, and the path.
        let paths = entries.filter_map(|entry| entry.splitn(2, |byte| *byte == b'\t').nth(1));
        paths
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect()
    }))
}

/// Makes a tree, in our clone, of the tracked files of the checkout as they are now.
pub(crate) fn edited_tree(
    checkout: &Repository,
    folder: &Path,
    source: &Repository,
) -> Result<Option<Oid>, Fault> {
    let room = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempdir_in(source.path())?;
    let index = room.path().join("index");
    copy_index(&checkout.path().join("index"), &index)?;
    let objects = source.path().join("objects");
    let on_copy = |args: &[&str]| {
        let mut command = git(folder, args);
        command
            .env("GIT_INDEX_FILE", &index)
            .env("GIT_OBJECT_DIRECTORY", &objects);
        ask(command)
    };
    // It judges each file by git's rules and forgets nothing that a sparse checkout leaves out.
    if on_copy(&["add", "--update"])?.is_none() {
        return Ok(None);
    }
    let Some(answer) = on_copy(&["write-tree"])? else {
        return Ok(None);
    };
    Ok(Some(Oid::from_str(
        String::from_utf8_lossy(&answer).trim(),
    )?))
}

/// With its time: git trusts an entry only if its file is older than the index.
fn copy_index(from: &Path, to: &Path) -> io::Result<()> {
    let modified = fs::metadata(from)?.modified()?;
    fs::copy(from, to)?;
    let times = FileTimes::new().set_modified(modified);
    File::options().write(true).open(to)?.set_times(times)
}

fn git(folder: &Path, args: &[&str]) -> Command {
    let mut command = shared::process::blocking_command("git");
    for name in MISLEADING {
        command.env_remove(name);
    }
    command
        .args(["-c", "core.fsmonitor=false", "-c", "core.safecrlf=false"])
        .args(args)
        .current_dir(folder)
        .env("LC_ALL", "C")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .process_group(getpgrp().as_raw())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs git; `None` where there is no such program.
fn ask(mut command: Command) -> Result<Option<Vec<u8>>, Fault> {
    let mut child = match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        child => child?,
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let complaint = std::thread::spawn(move || read(stderr, MAX_COMPLAINT));
    let answer = read(stdout, MAX_ANSWER);
    let complaint = complaint.join().unwrap_or_default();
    if child.wait()?.success() {
        return Ok(Some(answer));
    }
    let complaint = String::from_utf8_lossy(&complaint);
    let text = format!(
        "git can not tell what is changed in the checkout: {}",
        complaint.trim().replace('\n', "; ")
    );
    Err(Fault::new(Blame::Config, text)
        .hint("see `git status` there; filters such as git-lfs must be in the supervisor's PATH"))
}

/// Reads to the end, and returns the beginning.
fn read(from: Option<impl Read>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // What breaks off here shows in git's exit status.
        let _ = from.by_ref().take(most).read_to_end(&mut bytes);
        let _ = io::copy(&mut from, &mut io::sink());
    }
    bytes
}
