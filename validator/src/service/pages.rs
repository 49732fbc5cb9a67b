//! The pages: what they are made of, and how they become the files of a static site.

use std::{collections::BTreeSet, fs, path::Path};

use index::Index;
use page::{Form, Queued, Route, STYLE, Site};
use shared::{
    Exit, Failure,
    file::{self, FileError},
};

use super::{Known, STATUS};
use models::tracker::Outcome;
use report::status::{self, Status};

/// Steps that have a page in a static site.
const SITE_STEPS: usize = 200;

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

/// Writes the pages as files, each whole or not at all, and removes those of steps that have left; returns how many
/// pages there are.
pub fn write_site(state: &Path, folder: &Path) -> Result<usize, Failure> {
    let shown = Shown::read(state)?;
    let site = shown.site(false);
    let fail = |error| Failure::of(Exit::Machine, &error);
    let routes = site.routes(SITE_STEPS).map_err(fail)?;
    let write = |name: &str, text: &str| -> Result<(), Failure> {
        let written = file::write_atomic(&folder.join(name), text.as_bytes());
        written.map_err(|error| Failure::of(Exit::Machine, &error))
    };
    file::create_dir(folder).map_err(|error| Failure::of(Exit::Machine, &error))?;
    write("style.css", STYLE)?;
    let mut names = BTreeSet::new();
    for route in &routes {
        for form in [Form::Html, Form::Json] {
            if let Some(text) = site.page(route, form).map_err(fail)? {
                let name = route.file(form);
                write(&name, &text)?;
                names.insert(name);
            }
        }
    }
    remove_old(folder, &names).map_err(|error| Failure::of(Exit::Machine, &error))?;
    Ok(routes.len())
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
