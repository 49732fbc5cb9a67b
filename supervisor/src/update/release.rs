//! Installed releases: one folder each, and two links that say which one runs and which ran before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::file;

use super::state::Version;
use crate::{
    error::{Blame, Fault},
    home::Home,
};

const MAX_RECORD: u64 = 1 << 22;

/// What is known of an installed release; `release.json` in its folder, written last, so that a
/// folder with it is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Release {
    pub(crate) version: Version,
    /// When it was built, in seconds since 1970.
    pub(crate) built_at: u64,
    /// How long the build took, in seconds.
    pub(crate) build_seconds: u64,
    /// SHA-256 of each program.
    pub(crate) programs: BTreeMap<String, String>,
    /// Files of the repository that the build read.
    pub(crate) inputs: Vec<String>,
}

impl Release {
    /// Reads the record of an installed release; `None` if it is missing or incomplete.
    pub(crate) fn read(home: &Home, release: &str) -> Option<Self> {
        let path = home.release(release).join("release.json");
        let bytes = file::read_limited(&path, MAX_RECORD).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Returns whether a release lies where it should. Whether its programs are unchanged takes
    /// longer to tell; see [`Self::damaged`].
    pub(crate) fn is_there(home: &Home, release: &str) -> bool {
        let folder = home.release(release);
        Self::read(home, release).is_some_and(|record| {
            record
                .programs
                .keys()
                .all(|name| folder.join(name).is_file())
        })
    }

    /// Returns the first program whose file is missing or has changed since it was installed.
    pub(crate) fn damaged(&self, home: &Home) -> Option<String> {
        let folder = home.release(&self.version.release);
        let damaged = |(name, hash): &(&String, &String)| {
            sha256(&folder.join(name)).map_or(true, |found| found != **hash)
        };
        self.programs
            .iter()
            .find(damaged)
            .map(|(name, _)| name.clone())
    }

    /// Installs programs as a release: copied, synced, then renamed into place as a whole.
    pub(crate) fn install(
        home: &Home,
        version: &Version,
        programs: &[(String, PathBuf)],
        build_seconds: u64,
        inputs: Vec<String>,
    ) -> Result<(), Fault> {
        file::create_dir(&home.releases())?;
        let staging = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(home.releases())?;
        let mut hashes = BTreeMap::new();
        for (name, from) in programs {
            let to = staging.path().join(name);
            fs::copy(from, &to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
            fs::File::open(&to)?.sync_all()?;
            hashes.insert(name.clone(), sha256(&to)?);
        }
        let record = Self {
            version: version.clone(),
            built_at: shared::clock::unix_seconds(),
            build_seconds,
            programs: hashes,
            inputs,
        };
        let text = serde_json::to_vec_pretty(&record).map_err(|error| Fault::machine(&error))?;
        file::write_atomic(&staging.path().join("release.json"), &text)?;
        let target = home.release(&version.release);
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        let staged = staging.keep();
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o755))?;
        rename(&staged, &target)?;
        file::sync_dir(&home.releases())?;
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), Fault> {
    Ok(fs::rename(from, to)?)
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Points the links at a release. Doing it twice does no harm.
pub(crate) fn switch(home: &Home, to: &Version, previous: Option<&str>) -> Result<(), Fault> {
    if Release::read(home, &to.release).is_none() {
        let text = format!("release {} is not installed", to.release);
        return Err(Fault::new(Blame::Machine, text));
    }
    let releases = Path::new("releases");
    if let Some(previous) = previous.filter(|previous| *previous != to.release) {
        file::replace_symlink(&releases.join(previous), &home.previous())?;
    }
    file::replace_symlink(&releases.join(&to.release), &home.current())?;
    Ok(())
}

/// Makes `current` point to the release that should run, where somebody has removed the link.
pub(crate) fn mend_link(home: &Home, release: &str) {
    if fs::read_link(home.current()).is_err()
        && let Err(error) =
            file::replace_symlink(&Path::new("releases").join(release), &home.current())
    {
        tracing::warn!(
            error = shared::causes::one_line(&error),
            "could not mend the link"
        );
    }
}

/// Removes the oldest releases beyond `keep`, but none that is linked.
pub(crate) fn prune(home: &Home, accepted: &str, keep: usize) -> Result<(), Fault> {
    let linked: BTreeSet<PathBuf> = [home.current(), home.previous(), home.release(accepted)]
        .iter()
        .filter_map(|link| fs::canonicalize(link).ok())
        .collect();
    let mut old = Vec::new();
    for entry in fs::read_dir(home.releases())?.flatten() {
        let path = entry.path();
        // Left by an installation that was cut short; none is under way now.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            fs::remove_dir_all(&path)?;
            continue;
        }
        if fs::canonicalize(&path).is_ok_and(|path| !linked.contains(&path)) {
            old.push((entry.metadata()?.modified()?, path));
        }
    }
    old.sort();
    let surplus = old.len().saturating_sub(keep.saturating_sub(linked.len()));
    for (_, path) in old.into_iter().take(surplus) {
        fs::remove_dir_all(&path)?;
    }
    Ok(())
}
