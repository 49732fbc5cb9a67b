//! The state file: whole or not at all, set aside when it can't be used.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use shared::{
    Exit, Failure, causes, clock,
    file::{self, FileError},
    status::Health,
};

use super::{
    FORMAT, Identity, ModelLosses, State, StateError,
    losses::{self, LossFile, LossLine},
};
use report::{board::Alarm, step_record::Engine};
use subnet::CompetitionId;

const NAME: &str = "state.json";
const MAX_BYTES: u64 = 256 << 20;

/// The part of the file that every release can read.
#[derive(serde::Deserialize)]
struct Head {
    format: u32,
    identity: Identity,
}

/// Reads the state in a folder. A damaged one, one of another chain and one of a release too new
/// are set aside, loudly; one of another hotkey or subnet is an error.
pub fn read(folder: &Path, identity: &Identity) -> Result<Option<State>, StateError> {
    let path = folder.join(NAME);
    let Some(bytes) = file::read_limited(&path, MAX_BYTES)? else {
        return Ok(None);
    };
    let problem = match serde_json::from_slice::<Head>(&bytes) {
        Err(error) => damaged(&error),
        Ok(head) if head.format > FORMAT + 1 => {
            format!("its format {} comes from a later release", head.format)
        }
        Ok(head) if head.identity.genesis != identity.genesis => {
            "it belongs to another chain".to_owned()
        }
        Ok(head) if head.identity != *identity => {
            return Err(StateError::Foreign {
                path,
                found: Box::new(head.identity),
                expected: Box::new(identity.clone()),
            });
        }
        Ok(_) => match serde_json::from_slice::<State>(&bytes) {
            Ok(mut state) => {
                losses::read(folder, &mut state.known);
                return Ok(Some(state));
            }
            Err(error) => damaged(&error),
        },
    };
    let aside = set_aside(&path)?;
    tracing::error!(
        problem,
        aside = %aside.display(),
        "the state can't be used: set aside, starting from the chain"
    );
    Ok(None)
}

fn damaged(error: &serde_json::Error) -> String {
    format!("it is damaged: {}", causes::one_line(error))
}

/// Reads the state in a folder, whosever it is, and leaves everything as it is.
pub fn peek(folder: &Path) -> Result<Option<State>, String> {
    let bytes = file::read_limited(&folder.join(NAME), MAX_BYTES);
    let Some(bytes) = bytes.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let head: Head = serde_json::from_slice(&bytes).map_err(|error| damaged(&error))?;
    if head.format > FORMAT + 1 {
        return Err(format!(
            "its format {} comes from a later release",
            head.format
        ));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| damaged(&error))
}

fn set_aside(path: &Path) -> Result<PathBuf, FileError> {
    let aside = path.with_extension(format!("{}.aside.json", clock::unix_seconds()));
    std::fs::rename(path, &aside).map_err(FileError::on("set aside", path))?;
    Ok(aside)
}

/// The state with its file: every change is on disk before it is seen. What can't be written is
/// told until something can.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    content: Mutex<Content>,
    alarm: Alarm,
}

#[derive(Debug)]
struct Content {
    state: State,
    losses: LossFile,
}

impl Kept {
    /// Keeps a state in a folder from now on, writing it at once.
    pub fn new(folder: &Path, state: State, alarm: Alarm) -> Result<Self, StateError> {
        let kept = Self {
            path: folder.join(NAME),
            content: Mutex::new(Content {
                losses: LossFile::begin(folder, &state.known)?,
                state,
            }),
            alarm,
        };
        kept.update(|_| ())?;
        Ok(kept)
    }

    /// Changes the state. If it can't be written the old one stays, on disk and here.
    pub fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, StateError> {
        let mut content = self.lock();
        let mut next = content.state.clone();
        let result = change(&mut next);
        next.format = FORMAT;
        next.written_at = clock::now();
        let written = self.write(&next);
        if written.is_ok() {
            content.state = next;
        }
        self.told(written).map(|()| result)
    }

    /// Remembers the losses of a model, so that a restart does not compute them again.
    pub fn learn(
        &self,
        competition: &CompetitionId,
        samples: &str,
        engine: &Engine,
        content: &str,
        losses: ModelLosses,
    ) -> Result<(), StateError> {
        let line = LossLine {
            competition: competition.clone(),
            samples: samples.to_owned(),
            engine: engine.clone(),
            content: content.to_owned(),
            losses,
        };
        let mut content = self.lock();
        let Content { state, losses } = &mut *content;
        losses::learn(&mut state.known, line.clone());
        let written = losses.append(&line, &state.known);
        self.told(written)
    }

    /// Tells of a write that failed, until one succeeds.
    fn told(&self, written: Result<(), StateError>) -> Result<(), StateError> {
        match &written {
            Ok(()) => self.alarm.end(),
            Err(error) => self
                .alarm
                .raise(Health::Yellow, Failure::of(Exit::Machine, error)),
        }
        written
    }

    fn write(&self, state: &State) -> Result<(), StateError> {
        Ok(file::write_atomic(&self.path, &serde_json::to_vec(state)?)?)
    }

    /// Returns a copy of the state.
    pub fn get(&self) -> State {
        self.lock().state.clone()
    }

    pub fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        at(&self.lock().state)
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
