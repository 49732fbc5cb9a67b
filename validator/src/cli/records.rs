//! Step records named on the command line: read, chosen, and their signatures checked.

use std::path::{Path, PathBuf};

use clap::Args;
use sha2::{Digest, Sha256};
use shared::{Exit, Failure, cli::FullPath};

use chain::wallet;
use report::journal::{self, Entry, JournalError};

/// Which record.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecordFlags {
    /// A journal of step records (.jsonl, .jsonl.zst), a folder of them, or a single record, with its .sig beside it
    #[arg(value_name = "RECORD")]
    pub(crate) record: FullPath,
    /// The step [default: the last in the file]
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u64>,
    /// Accept a record without signature
    #[arg(long)]
    pub(crate) unsigned: bool,
}

impl RecordFlags {
    /// Reads the record and checks its signature.
    pub(crate) fn entry(&self) -> Result<Entry, Failure> {
        let mut entries = read(&file_with(&self.record, self.step)?)?;
        let entry = match self.step {
            None => entries.pop(),
            Some(step) => entries.into_iter().find(|entry| entry.record.step == step),
        };
        let name = self.record.display();
        let entry = entry
            .ok_or_else(|| Failure::new(Exit::BadInput, format_args!("{name} has no such step")))
            .map_err(|failure| failure.hint("older steps are in compressed files beside it: name the folder, --step finds the file"))?;
        check_signature(&entry, self.unsigned).map_err(|failure| {
            failure.because(format_args!("step {} of {name}", entry.record.step))
        })?;
        Ok(entry)
    }
}

/// Returns the file that has a step, or the newest, of a journal's folder; any other path is the file itself.
fn file_with(path: &Path, step: Option<u64>) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let rotated = journal::rotated(path).map_err(|error| Failure::of(Exit::Machine, &error))?;
    let current = path.join(journal::CURRENT);
    let has = |file: &&PathBuf| {
        let range = journal::steps_of(file);
        step.zip(range)
            .is_some_and(|(step, (first, last))| (first..=last).contains(&step))
    };
    if let Some(file) = rotated.iter().find(has) {
        return Ok(file.clone());
    }
    // Just after a rotation the newest step is in a compressed file.
    let newest = rotated
        .into_iter()
        .next_back()
        .filter(|_| !current.exists());
    Ok(newest.unwrap_or(current))
}

/// Reads all records of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, Failure> {
    journal::read(path).map_err(|error| {
        let exit = match &error {
            JournalError::File(_) => Exit::Machine,
            JournalError::Missing(_) | JournalError::Malformed { .. } => Exit::BadInput,
        };
        Failure::of(exit, &error)
    })
}

/// Refuses a record that its validator did not sign as it is.
pub(crate) fn check_signature(entry: &Entry, unsigned: bool) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::new(Exit::Refused, why));
    let Some(signature) = &entry.signature else {
        if unsigned {
            return Ok(());
        }
        return refuse("the record has no signature").map_err(|failure| {
            failure.hint("its signatures lie beside it, in a file of its name with .sig; --unsigned goes without")
        });
    };
    if signature.hotkey != entry.record.hotkey {
        return refuse("the record was signed by another hotkey than it names");
    }
    if signature.sha256 != hex::encode(Sha256::digest(&entry.line)) {
        return refuse("the record was tampered with: it is not what was signed");
    }
    let bytes: Option<[u8; 64]> = hex::decode(&signature.signature)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    let signed = journal::signed_bytes(&entry.line);
    match bytes {
        Some(bytes) if wallet::verify(&signature.hotkey, &signed, &bytes) => Ok(()),
        _ => refuse("the record was tampered with: its signature is not of its hotkey"),
    }
}
