//! What the scenes of the demo are made of: what is said, what is waited for and how long.

use std::{
    cell::{Cell, RefCell},
    fmt,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use shared::{Exit, Failure, term};

use super::{
    Stage,
    programs::{Report, Supervisor},
};
use crate::{Localnet, remote::Remote};

/// Longest time for a build; cold, it compiles hundreds of crates.
pub(super) const BUILD_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Longest time for the supervisor to get over the same trouble.
pub(super) const TROUBLE_LIMIT: Duration = Duration::from_secs(60);
/// Longest time for any other scene.
pub(super) const SCENE_LIMIT: Duration = Duration::from_secs(180);
/// Time between two lines on what is going on where there is no terminal.
pub(super) const NOW_AND_THEN: Duration = Duration::from_secs(15);
pub(super) const LOOK: Duration = Duration::from_millis(400);
/// The file a new commit changes; it is compiled into the validator.
pub(super) const TOUCHED: &str = "validator/src/main.rs";

/// Prints scenes with the time since the start.
pub(super) struct Scenes {
    began: Instant,
    told: Cell<Instant>,
    /// What was last heard to stand in the supervisor's way.
    heard: RefCell<Option<String>>,
    pub(super) spinner: ProgressBar,
}

impl Scenes {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            told: Cell::new(Instant::now()),
            heard: RefCell::new(None),
            spinner: term::spinner(""),
        }
    }

    pub(super) fn say(&self, text: impl fmt::Display) {
        let seconds = self.began.elapsed().as_secs();
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        self.show(format_args!("[{minutes:2}:{seconds:02}] {text}"));
    }

    pub(super) fn show(&self, text: impl fmt::Display) {
        self.spinner.suspend(|| term::line(text));
    }

    /// Shows what is going on: all the time on a terminal, now and then elsewhere.
    pub(super) fn going_on(&self, what: impl Into<String>) {
        let what = what.into();
        if !std::io::stderr().is_terminal() && self.told.get().elapsed() > NOW_AND_THEN {
            self.told.set(Instant::now());
            term::note(format_args!("        … {what}"));
        }
        self.spinner.set_message(what);
    }
}

impl Drop for Scenes {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
    }
}

pub(super) fn git_remote(subnet: &Localnet) -> Result<&Remote, Failure> {
    let remote = subnet.remote.as_ref();
    remote.ok_or_else(|| Failure::new(Exit::Bug, "the git remote is not up"))
}

/// Looks at the supervisor until `found` finds what it looks for in its report.
pub(super) async fn watch<T>(
    stage: &mut Stage,
    scenes: &Scenes,
    what: &str,
    limit: Duration,
    found: impl Fn(&Report) -> Option<T>,
) -> Result<T, Failure> {
    let mut deadline = Instant::now() + limit;
    loop {
        let report = supervisor(stage)?.report().await?;
        let trouble = report.as_ref().and_then(Report::trouble);
        if let Some(thing) = report.as_ref().and_then(&found) {
            scenes.heard.replace(trouble);
            return Ok(thing);
        }
        if trouble != *scenes.heard.borrow() {
            // A supervisor tries again by itself; the demo gives it a while.
            let patience = if trouble.is_some() {
                TROUBLE_LIMIT
            } else {
                limit
            };
            deadline = Instant::now() + patience;
            if let Some(trouble) = &trouble {
                scenes.say(format_args!("the supervisor says: {trouble}"));
            }
            scenes.heard.replace(trouble);
        }
        if Instant::now() > deadline || report.as_ref().is_some_and(Report::is_hopeless) {
            return Err(missed(stage, what, report.as_ref()));
        }
        scenes.going_on(report.map_or_else(|| "waiting".to_owned(), |report| report.line()));
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) fn supervisor(stage: &mut Stage) -> Result<&mut Supervisor, Failure> {
    let found = stage.supervisor.as_mut();
    found.ok_or_else(|| Failure::new(Exit::Bug, "the supervisor is not running"))
}

pub(super) fn missed(stage: &Stage, what: &str, report: Option<&Report>) -> Failure {
    let text = format!("{what}: did not happen");
    let words = stage
        .supervisor
        .as_ref()
        .map(Supervisor::last_words)
        .unwrap_or_default();
    let trouble = report.and_then(Report::trouble);
    trouble
        .into_iter()
        .chain(words)
        .fold(Failure::new(Exit::Failed, text), Failure::because)
}

pub(super) fn short(release: &str) -> &str {
    release.get(..12).unwrap_or(release)
}
