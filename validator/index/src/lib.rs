//! The index: the journal as a database, so that questions about many steps are answered at once.
//!
//! It lies beside the journal, is made from it and from the file of events, and may be deleted at any time: whoever
//! opens it next makes it again. It is never the truth. Nothing that is signed, scored or set on the chain reads it.
//!
//! Mechanism: every opener brings it up to date first, under a lock that nobody waits for. Who does not get the lock,
//! or may not write, reads what is there. An index of another version, a damaged one and one of another journal are
//! made anew in a second file, which then takes the place of the first, so that readers always have a whole one.
//!
//! Bounds: the newest [`KEPT_STEPS`] steps, losses of single samples for the newest [`KEPT_LOSSES`],
//! answers for the newest [`KEPT_ANSWERS`], and fixed numbers
//! of refusals, events and readings.

mod answers;
mod changes;
mod copies;
mod history;
mod ingest;
mod leaders;
mod lines;
mod questions;
mod rows;
mod schema;
mod trust;

use std::{
    cell::RefCell,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use shared::file::{self, FileError, FileLock, LockError};

pub use self::{
    answers::Answers,
    changes::{Change, Changes, Presence},
    copies::{CopyFinding, CopyReport},
    history::{FaultRow, HealthChange, StartRow, WeightSetRow},
    leaders::{Leader, Leaders},
    rows::{RefusalSpan, SeriesPoint, StepHead, VerdictRow},
    trust::{Disagreement, TrustRow, TrustView},
};

/// The file of the index, in the folder of the state.
pub const INDEX: &str = "index.sqlite";

/// Steps whose verdicts are kept.
pub const KEPT_STEPS: u64 = 20_000;

/// Steps whose losses are kept sample by sample; as many as sample sets are kept for replays.
pub const KEPT_LOSSES: u64 = 200;

/// Steps whose answers are kept, if models were asked for any.
pub const KEPT_ANSWERS: u64 = 50;

/// How long a reader waits for a writer that commits.
const BUSY: Duration = Duration::from_secs(5);

/// Why the index could not be had.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error(transparent)]
    File(#[from] FileError),
    /// There is nothing to make it of.
    #[error("there are no records in {}", .0.display())]
    NoRecords(PathBuf),
    /// Another process makes it, and there is none to read meanwhile.
    #[error("the index is being made by another process; try again in a moment")]
    Building,
    /// It can't be read or written.
    #[error("the index {} could not be used", path.display())]
    Database {
        path: PathBuf,
        source: rusqlite::Error,
    },
}

impl IndexError {
    fn on(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Self::Database {
            path: path.to_owned(),
            source,
        }
    }

    /// Returns whether the file itself is at fault, so that making it anew helps.
    fn is_damage(&self) -> bool {
        let Self::Database { source, .. } = self else {
            return false;
        };
        match source {
            rusqlite::Error::SqliteFailure(error, _) => matches!(
                error.code,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
            ),
            // A column of another type or name: a table that is not ours.
            rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..) => true,
            _ => false,
        }
    }
}

/// The index, open for questions.
#[derive(Debug)]
pub struct Index {
    connection: Connection,
    path: PathBuf,
    rebuilt: Option<String>,
    /// The near pairs of the newest steps, once somebody asked.
    near: RefCell<Option<Vec<CopyFinding>>>,
}

impl Index {
    /// Opens the index of a state's folder and brings it up to date, if nobody else is doing that and the folder may
    /// be written.
    pub fn open(state: &Path) -> Result<Self, IndexError> {
        let records = state.join("records");
        match fs::metadata(&records) {
            Ok(about) if about.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(FileError::on("read", &records)(error).into());
            }
            _ => return Err(IndexError::NoRecords(records)),
        }
        let path = state.join(INDEX);
        let lock = match FileLock::try_acquire(&state.join("index.lock"), "index") {
            Ok(lock) => lock,
            Err(LockError::Held { .. }) if !path.exists() => return Err(IndexError::Building),
            Err(LockError::File(error)) if !path.exists() => return Err(error.into()),
            Err(_) => return Self::read(&path, None),
        };
        let why = match Self::refreshed(&path, &records) {
            Ok(None) => return Self::read(&path, None),
            Ok(Some(why)) => Some(why),
            Err(error) if error.is_damage() => Some("it was damaged".to_owned()),
            Err(error) => return Err(error),
        };
        Self::build(&path, &records)?;
        drop(lock);
        // A first index is not news.
        Self::read(&path, why.filter(|why| !why.is_empty()))
    }

    /// Returns why the index was made anew by this opening, if it was.
    pub fn rebuilt(&self) -> Option<&str> {
        self.rebuilt.as_deref()
    }

    /// Brings an index up to date; returns why it has to be made anew instead, if it has to.
    fn refreshed(path: &Path, records: &Path) -> Result<Option<String>, IndexError> {
        if !path.exists() {
            return Ok(Some(String::new()));
        }
        let fail = IndexError::on(path);
        let mut connection = Connection::open(path).map_err(&fail)?;
        connection.busy_timeout(BUSY).map_err(&fail)?;
        if let Some(why) = schema::unfit(&connection).map_err(&fail)? {
            return Ok(Some(why));
        }
        let done = ingest::ingest(&mut connection, records, path)?;
        Ok((!done).then(|| "it was of another journal".to_owned()))
    }

    /// Makes the index from nothing, beside the old one, which it then replaces.
    fn build(path: &Path, records: &Path) -> Result<(), IndexError> {
        let new = path.with_extension("sqlite.new");
        let journal_of = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push("-journal");
            PathBuf::from(name)
        };
        file::remove_file(&journal_of(&new))?;
        file::remove_file(&new)?;
        let fail = IndexError::on(&new);
        let mut connection = Connection::open(&new).map_err(&fail)?;
        schema::create(&connection).map_err(&fail)?;
        ingest::ingest(&mut connection, records, &new)?;
        connection
            .close()
            .map_err(|(_, error)| IndexError::on(&new)(error))?;
        // What a killed writer of the old file left would be rolled into the new one.
        file::remove_file(&journal_of(path))?;
        let moved = fs::rename(&new, path);
        moved.map_err(FileError::on("put into place", path))?;
        Ok(())
    }

    fn read(path: &Path, rebuilt: Option<String>) -> Result<Self, IndexError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let fail = IndexError::on(path);
        let connection = Connection::open_with_flags(path, flags).map_err(&fail)?;
        connection.busy_timeout(BUSY).map_err(&fail)?;
        if schema::unfit(&connection).map_err(&fail)?.is_some() {
            let other =
                io::Error::other("it is of another version, and this user may not write it");
            return Err(FileError::on("use the index", path)(other).into());
        }
        Ok(Self {
            connection,
            path: path.to_owned(),
            rebuilt,
            near: RefCell::default(),
        })
    }

    /// Runs a question, and says of a failure which file it is about.
    fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, IndexError> {
        question(&self.connection).map_err(IndexError::on(&self.path))
    }
}
