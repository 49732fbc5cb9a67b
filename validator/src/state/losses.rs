//! The file of known losses: a line for each model, appended, so that what one more model costs does
//! not grow with their number.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use shared::file;

use super::{KnownLosses, ModelLosses, StateError};
use report::step_record::Engine;
use subnet::CompetitionId;

const NAME: &str = "losses.jsonl";
const MAX_BYTES: u64 = 256 << 20;

/// The file is written anew once it has so many lines and most of them are out of date.
const FEWEST_LINES: usize = 64;

/// The losses of one model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LossLine {
    pub(super) competition: CompetitionId,
    /// Digest of the sample set.
    pub(super) samples: String,
    pub(super) engine: Engine,
    pub(super) content: String,
    pub(super) losses: ModelLosses,
}

type Known = BTreeMap<CompetitionId, KnownLosses>;

/// The file of known losses, open for writing.
#[derive(Debug)]
pub(super) struct LossFile {
    path: PathBuf,
    lines: usize,
}

/// Remembers the losses of a model; those on another sample set or of another engine go.
pub(super) fn learn(known: &mut Known, line: LossLine) {
    let LossLine {
        competition,
        samples,
        engine,
        content,
        losses,
    } = line;
    let known = known.entry(competition).or_default();
    if known.samples != samples || known.engine != engine {
        *known = KnownLosses {
            samples,
            engine,
            models: BTreeMap::new(),
        };
    }
    known.models.insert(content, losses);
}

/// Adds what the file in a folder knows. A damaged line costs its model another computation, a
/// file that can't be read all of them.
pub(super) fn read(folder: &Path, known: &mut Known) {
    let path = folder.join(NAME);
    let bytes = match file::read_limited(&path, MAX_BYTES) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(error) => {
            tracing::error!(error = %shared::causes::one_line(&error), "the known losses can't be read: they are computed again");
            return;
        }
    };
    let mut damaged = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(line) => learn(known, line),
            Err(_) => damaged += usize::from(!line.is_empty()),
        }
    }
    if damaged > 0 {
        tracing::warn!(path = %path.display(), damaged, "passing over damaged lines of known losses");
    }
}

impl LossFile {
    /// Begins the file of a folder with what is known.
    pub(super) fn begin(folder: &Path, known: &Known) -> Result<Self, StateError> {
        let mut file = Self {
            path: folder.join(NAME),
            lines: 0,
        };
        file.rewrite(known)?;
        Ok(file)
    }

    /// Appends a line to what is `known`, that line included.
    pub(super) fn append(&mut self, line: &LossLine, known: &Known) -> Result<(), StateError> {
        let live: usize = known.values().map(|known| known.models.len()).sum();
        if self.lines >= FEWEST_LINES.max(2 * live) {
            return self.rewrite(known);
        }
        file::append(&self.path, &text(line)?)?;
        self.lines += 1;
        Ok(())
    }

    fn rewrite(&mut self, known: &Known) -> Result<(), StateError> {
        let mut bytes = Vec::new();
        let mut lines = 0;
        for (competition, known) in known {
            for (content, losses) in &known.models {
                bytes.extend(text(&LossLine {
                    competition: competition.clone(),
                    samples: known.samples.clone(),
                    engine: known.engine.clone(),
                    content: content.clone(),
                    losses: losses.clone(),
                })?);
                lines += 1;
            }
        }
        file::write_atomic(&self.path, &bytes)?;
        self.lines = lines;
        Ok(())
    }
}

fn text(line: &LossLine) -> Result<Vec<u8>, StateError> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}
