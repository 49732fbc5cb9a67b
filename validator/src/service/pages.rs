//! The pages: what they are made of, and how they become the files of a static site.

use std::{collections::BTreeSet, fs, path::Path};

use index::{Index, IndexError};
use jiff::Timestamp;
use page::{Form, Queued, Route, STYLE, Site};
use serde::{Deserialize, Serialize};
use shared::{
    Exit, Failure,
    file::{self, FileError},
};

use super::{Known, STATUS};
use models::tracker::Outcome;
use report::status::{self, Status};

/// Steps that have a page in a static site.
const SITE_STEPS: usize = 200;

/// Says how far the pages of a folder are.
const MARK: &str = "written.json";
const MAX_MARK: u64 = 4096;

/// What a state's folder has to show.
#[derive(Debug)]
pub(super) struct Shown {
    index: Index,
    status: Option<Status>,
    queue: Vec<Queued>,
}

impl Shown {
    /// Reads it, up to date.
    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        let index = Index::open(folder).map_err(|error| Failure::of(Exit::Machine, &error))?;
        Ok(Self {
            index,
            // One that can't be read is shown as none.
            status: status::read(&folder.join(STATUS)).ok().flatten(),
            queue: queue(&Known::read(folder)?),
        })
    }

    pub(super) fn site(&self, is_live: bool) -> Site<'_> {
        Site {
            index: &self.index,
            status: self.status.clone(),
            queue: self.queue.clone(),
            is_live,
        }
    }
}

/// Returns the commitments with how far they are, by uid.
fn queue(known: &Known) -> Vec<Queued> {
    let entries = known.tracker.entries().values();
    let mut queue: Vec<Queued> = entries
        .map(|entry| {
            let (stage, reason, again_at) = match &entry.outcome {
                Outcome::Verified { .. } => ("verified", None, None),
                Outcome::Refused { reason } => ("refused", Some(reason.clone()), None),
                Outcome::Waiting { fault, at, .. } => {
                    ("waiting", Some(fault.to_string()), Some(*at))
                }
            };
            Queued {
                uid: entry.uid.0,
                model: entry.model_id.to_string(),
                stage: stage.to_owned(),
                reason,
                again_at,
            }
        })
        .collect();
    queue.sort_by_key(|queued| queued.uid);
    queue
}

/// How far a folder's pages are: they are as this release makes them, and those of steps up to this one are there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Written {
    version: String,
    /// The newest step that had a page, and when it ended: a journal begun anew has other steps of the same numbers.
    step: u64,
    finished: Timestamp,
}

/// Writes the pages as files, each whole or not at all, and removes those of steps that have left; returns how many
/// pages there are.
///
/// With a version, pages that version has written are left as they are where nothing can have changed: that of a step
/// is final once a later one has its own. Steps are written in order and `MARK` comes last, so that after a crash
/// whatever is not known to be final is written again.
pub fn write_site(state: &Path, folder: &Path, version: Option<&str>) -> Result<usize, Failure> {
    let shown = Shown::read(state)?;
    let site = shown.site(false);
    let machine = |error: &FileError| Failure::of(Exit::Machine, error);
    let fail = |error: IndexError| Failure::of(Exit::Machine, &error);
    file::create_dir(folder).map_err(|error| machine(&error))?;
    let final_before = match version {
        Some(version) => final_before(&shown.index, folder, version).map_err(fail)?,
        None => None,
    };
    let mut routes = site.routes(SITE_STEPS).map_err(fail)?;
    routes.sort_by_key(|route| match route {
        Route::Step(step) => *step,
        _ => 0,
    });
    write(folder, "style.css", STYLE).map_err(|error| machine(&error))?;
    let mut names = BTreeSet::new();
    for route in &routes {
        let forms = [Form::Html, Form::Json];
        let of_both = forms.map(|form| route.file(form));
        let is_final = matches!(route, Route::Step(step) if Some(*step) < final_before)
            && of_both.iter().all(|name| folder.join(name).exists());
        if !is_final {
            for (form, name) in forms.into_iter().zip(&of_both) {
                if let Some(text) = site.page(route, form).map_err(fail)? {
                    write(folder, name, &text).map_err(|error| machine(&error))?;
                }
            }
        }
        names.extend(of_both);
    }
    remove_old(folder, &names).map_err(|error| machine(&error))?;
    if let (Some(version), Some((head, _))) = (version, shown.index.step(None).map_err(fail)?) {
        let mark = Written {
            version: version.to_owned(),
            step: head.step,
            finished: head.finished,
        };
        let text = serde_json::json!(mark).to_string();
        write(folder, MARK, &text).map_err(|error| machine(&error))?;
    }
    Ok(routes.len())
}

/// Returns the step before which pages are final; none if those of the folder may be of another release or journal.
fn final_before(index: &Index, folder: &Path, version: &str) -> Result<Option<u64>, IndexError> {
    let mark = file::read_limited(&folder.join(MARK), MAX_MARK)
        .ok()
        .flatten();
    let Some(mark) = mark.and_then(|bytes| serde_json::from_slice::<Written>(&bytes).ok()) else {
        return Ok(None);
    };
    let known = index.step(Some(mark.step))?;
    let same = known.is_some_and(|(head, _)| head.finished == mark.finished);
    Ok((same && mark.version == version).then_some(mark.step))
}

/// Writes a file, unless it is so already.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), FileError> {
    let path = folder.join(name);
    let before = file::read_limited(&path, text.len() as u64).ok().flatten();
    if before.is_some_and(|before| before == text.as_bytes()) {
        return Ok(());
    }
    file::write_atomic(&path, text.as_bytes())
}

/// Removes pages of steps that are not among these; other files of the folder are not ours.
fn remove_old(folder: &Path, names: &BTreeSet<String>) -> Result<(), FileError> {
    let entries = fs::read_dir(folder).map_err(FileError::on("list", folder))?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if matches!(Route::of(&name), Some((Route::Step(_), _))) && !names.contains(&name) {
            file::remove_file(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::SystemTime};

    use report::{
        Journal, StepRecord,
        step_record::{self, Engine, Rules, Samples},
    };
    use subnet::{CompetitionId, Hotkey, Netuid, Parameters};

    use super::*;

    fn record(step: u64, finished: i64) -> StepRecord {
        StepRecord {
            format: step_record::FORMAT,
            version: "test".into(),
            netuid: Netuid(6),
            hotkey: Hotkey([7; 32]),
            step,
            competition: CompetitionId::from("l3"),
            block: step,
            block_hash: String::new(),
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::from_second(finished).unwrap(),
            rules: Rules::of(&Parameters::embedded(), 2, 0.5),
            samples: Samples::default(),
            engine: Engine::default(),
            sandbox: None,
            plans: BTreeMap::new(),
            models: BTreeMap::new(),
            refused: vec![],
            weights_before: vec![],
            weights_after: vec![],
            kept: vec![],
            generated: BTreeMap::new(),
            receipt: None,
            timings: BTreeMap::new(),
        }
    }

    /// A state's folder with a journal, and a folder of pages.
    struct Folders {
        state: tempfile::TempDir,
        pages: tempfile::TempDir,
    }

    impl Folders {
        fn append(&self, steps: impl IntoIterator<Item = u64>, finished: i64) {
            let records = self.state.path().join("records");
            let journal = Journal::open(&records, 1 << 20, 1).unwrap();
            for step in steps {
                journal
                    .append(&record(step, finished), |_| [0; 64])
                    .unwrap();
            }
        }

        fn write(&self, version: &str) {
            write_site(self.state.path(), self.pages.path(), Some(version)).unwrap();
        }

        fn page(&self, name: &str) -> String {
            fs::read_to_string(self.pages.path().join(name)).unwrap()
        }

        /// Makes a page one that would be seen to be written again.
        fn mark(&self, name: &str) {
            file::write_atomic(&self.pages.path().join(name), b"as it was").unwrap();
        }

        fn is_marked(&self, name: &str) -> bool {
            self.page(name) == "as it was"
        }

        fn written(&self, name: &str) -> SystemTime {
            let metadata = fs::metadata(self.pages.path().join(name)).unwrap();
            metadata.modified().unwrap()
        }
    }

    #[test]
    fn what_cannot_have_changed_is_written_once() {
        let folders = Folders {
            state: tempfile::tempdir().unwrap(),
            pages: tempfile::tempdir().unwrap(),
        };
        folders.append(0..3, 100);
        folders.write("1");
        assert!(!folders.page("step-2.html").contains("After it"));
        let style = folders.written("style.css");
        folders.mark("step-1.html");
        folders.mark("step-2.html");
        folders.append([3], 100);
        folders.write("1");
        // The last one has a neighbor now, those before had theirs.
        assert!(folders.is_marked("step-1.html"));
        assert!(folders.page("step-2.html").contains("step-3.html"));
        assert_eq!(folders.written("style.css"), style);
        // Killed before all was written: the mark tells of the run before.
        folders.append([4], 100);
        fs::remove_file(folders.pages.path().join("step-2.json")).unwrap();
        folders.mark("step-3.html");
        folders.write("1");
        assert!(folders.page("step-2.json").contains("\"step\":2"));
        assert!(folders.page("step-3.html").contains("step-4.html"));
        // Another release makes other pages.
        folders.write("2");
        assert!(!folders.is_marked("step-1.html"));
        // A journal begun anew has other steps of the same numbers.
        fs::remove_dir_all(folders.state.path().join("records")).unwrap();
        folders.append(0..6, 200);
        folders.mark("step-1.html");
        folders.write("2");
        assert!(!folders.is_marked("step-1.html"));
    }
}
