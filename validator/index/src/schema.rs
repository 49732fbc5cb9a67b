//! The tables, and which version of them this release knows.
//!
//! NaN has no place in SQLite: it is stored as NULL, and a loss that is NULL is NaN. Infinities are stored as they are.

use rusqlite::{Connection, Error};

/// Rises with every change of the tables: an index of another version is made anew.
const VERSION: i64 = 2;

/// "fval": tells our files from other databases.
const APPLICATION: i64 = 0x6676_616c;

const TABLES: &str = "
CREATE TABLE source (name TEXT PRIMARY KEY, offset INTEGER NOT NULL, tail TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE step (
    step INTEGER PRIMARY KEY, competition TEXT NOT NULL, block INTEGER NOT NULL, started INTEGER NOT NULL,
    finished INTEGER NOT NULL, seconds REAL NOT NULL, digest TEXT NOT NULL, samples INTEGER NOT NULL,
    seed_block INTEGER, cached_age INTEGER, sources TEXT NOT NULL, version TEXT NOT NULL, device TEXT NOT NULL,
    dtype TEXT NOT NULL, models INTEGER NOT NULL, refused INTEGER NOT NULL, timings TEXT NOT NULL,
    line_sha256 TEXT NOT NULL
);
CREATE INDEX step_of_competition ON step (competition, step);
CREATE TABLE model (
    id INTEGER PRIMARY KEY, hotkey TEXT NOT NULL, block INTEGER NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL,
    parameters INTEGER NOT NULL, UNIQUE (hotkey, block, name, content)
);
CREATE TABLE verdict (
    step INTEGER NOT NULL, uid INTEGER NOT NULL, model INTEGER NOT NULL, outcome TEXT NOT NULL, copy_of INTEGER,
    fault TEXT, reason TEXT, loss REAL, finite INTEGER NOT NULL, samples INTEGER NOT NULL, win_rate REAL NOT NULL,
    wins INTEGER NOT NULL, matches INTEGER NOT NULL, weight REAL, kept INTEGER NOT NULL, rank INTEGER,
    seconds REAL NOT NULL, PRIMARY KEY (step, uid)
) WITHOUT ROWID;
CREATE INDEX verdict_of_uid ON verdict (uid, step);
CREATE INDEX verdict_failed ON verdict (step) WHERE fault IS NOT NULL;
CREATE TABLE losses (
    step INTEGER NOT NULL, uid INTEGER NOT NULL, losses BLOB NOT NULL, PRIMARY KEY (step, uid)
) WITHOUT ROWID;
CREATE TABLE prompt (step INTEGER PRIMARY KEY, prompt TEXT NOT NULL, truth TEXT NOT NULL);
CREATE TABLE answer (
    step INTEGER NOT NULL, uid INTEGER NOT NULL, answer TEXT NOT NULL, PRIMARY KEY (step, uid)
) WITHOUT ROWID;
CREATE TABLE refusal (
    hotkey TEXT NOT NULL, block INTEGER NOT NULL, uid INTEGER NOT NULL, competition TEXT NOT NULL, name TEXT NOT NULL,
    reason TEXT NOT NULL, first_step INTEGER NOT NULL, first_at INTEGER NOT NULL, last_step INTEGER NOT NULL,
    last_at INTEGER NOT NULL, PRIMARY KEY (hotkey, block)
) WITHOUT ROWID;
CREATE INDEX refusal_of_uid ON refusal (uid);
CREATE INDEX refusal_by_age ON refusal (last_step);
CREATE TABLE weight_set (
    block INTEGER PRIMARY KEY, at INTEGER, extrinsic TEXT NOT NULL, attempts INTEGER NOT NULL, stored TEXT NOT NULL
);
CREATE TABLE health (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, cause TEXT NOT NULL, health TEXT, text TEXT NOT NULL
);
CREATE INDEX health_at ON health (at);
CREATE TABLE start (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, version TEXT NOT NULL);
CREATE TABLE trust (
    block INTEGER PRIMARY KEY, at INTEGER NOT NULL, validator_trust INTEGER NOT NULL, consensus TEXT NOT NULL,
    ours TEXT NOT NULL
);
";

/// Makes the tables in an empty file.
pub(crate) fn create(connection: &Connection) -> Result<(), Error> {
    // Nobody reads the file before it is complete, and a crash means to begin again.
    connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", VERSION)
}

/// Returns why a file is not an index that this release knows.
pub(crate) fn unfit(connection: &Connection) -> Result<Option<String>, Error> {
    let number = |name: &str| -> Result<i64, Error> {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    };
    let version = number("user_version")?;
    Ok(match number("application_id")? {
        APPLICATION if version == VERSION => None,
        APPLICATION if version > VERSION => Some(format!("it was of a later release ({version})")),
        APPLICATION => Some(format!("it was of an earlier release ({version})")),
        _ => Some("it was not one of ours".to_owned()),
    })
}
