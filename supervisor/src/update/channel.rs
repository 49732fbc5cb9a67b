//! The release channel: signed archives are downloaded instead of commits being built.

use std::{
    fs::{self, File},
    io::{Read, Seek},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use self_update::{Download, Extract, backends::github::ReleaseList, update::Release as Listed};
use semver::Version as Semver;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::file;
use zipsign_api::{PUBLIC_KEY_LENGTH, SigningKey, sign::copy_and_sign_tar};

use super::{
    release::Release,
    state::{Polled, Version},
};
use crate::{
    error::{Blame, Fault},
    job::{Build, Poll},
    worker::progress,
};

const MAX_ARCHIVE: u64 = 1 << 30;
const MAX_SUM: u64 = 1 << 16;
const PATIENCE: Duration = Duration::from_mins(30);

/// Where releases are listed and who signs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downloads {
    /// `OWNER/NAME` of the repository whose releases they are.
    pub repository: String,
    /// Base of another API than GitHub's, for mirrors.
    pub api: Option<String>,
    /// The public key (32 bytes, as zipsign writes it).
    pub key: PathBuf,
    /// Whether to go to versions that semver calls incompatible.
    pub allow_incompatible: bool,
}

/// Looks for a newer release for this machine.
pub fn poll(job: &Poll, downloads: &Downloads) -> Result<Polled, Fault> {
    if let Some(accepted) = &job.accepted
        && !Release::is_there(&job.home, &accepted.release)
    {
        // Somebody removed what should be running.
        return Ok(Polled::New(accepted.clone()));
    }
    let accepted = job
        .accepted
        .as_ref()
        .and_then(|version| parse(&version.commit));
    let trusted = job.trusted.as_deref().and_then(parse);
    let newest = list(downloads)?
        .into_iter()
        .filter_map(|release| Some((parse(release.version())?, release)))
        .filter(|(version, _)| match &job.pin {
            Some(pin) => parse(pin).as_ref() == Some(version),
            None => acceptable(version, accepted.as_ref(), trusted.as_ref(), downloads),
        })
        .max_by(|(a, _), (b, _)| a.cmp(b));
    let Some((version, release)) = newest else {
        return nothing(job, downloads);
    };
    if Some(&version) == accepted.as_ref() {
        return Ok(Polled::UpToDate);
    }
    let asset = archive(&release)
        .ok_or_else(|| Fault::new(Blame::Outside, format!("{version} has no archive for us")))?;
    Ok(Polled::New(Version {
        commit: format!("v{version}"),
        release: version.to_string(),
        source: asset.download_url().to_owned(),
        summary: release.name().chars().take(120).collect(),
        signer: Some(downloads.key.display().to_string()),
    }))
}

fn nothing(job: &Poll, downloads: &Downloads) -> Result<Polled, Fault> {
    if job.accepted.is_some() && job.pin.is_none() {
        return Ok(Polled::UpToDate);
    }
    let what = job
        .pin
        .as_deref()
        .map_or_else(String::new, |pin| format!(" {pin}"));
    let target = self_update::get_target();
    let text = format!("{} has no release{what} for {target}", downloads.repository);
    Err(Fault::new(Blame::Outside, text))
}

/// Never back, never to a pre-release, and not to an incompatible version unless allowed.
fn acceptable(
    version: &Semver,
    accepted: Option<&Semver>,
    trusted: Option<&Semver>,
    downloads: &Downloads,
) -> bool {
    let compatible = |old: &Semver| {
        old.major == version.major && (version.major > 0 || old.minor == version.minor)
    };
    version.pre.is_empty()
        && trusted.is_none_or(|trusted| version >= trusted)
        && accepted.is_none_or(|old| downloads.allow_incompatible || compatible(old))
}

fn parse(tag: &str) -> Option<Semver> {
    Semver::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

fn list(downloads: &Downloads) -> Result<Vec<Listed>, Fault> {
    let Some((owner, name)) = downloads.repository.split_once('/') else {
        let text = format!("{:?} is not OWNER/NAME", downloads.repository);
        return Err(Fault::new(Blame::Config, text));
    };
    let mut list = ReleaseList::configure();
    list.repo_owner(owner).repo_name(name);
    if let Some(api) = &downloads.api {
        list.api_base_url(api.trim_end_matches('/'));
    }
    let fetched = list.build().and_then(|list| list.fetch());
    fetched
        .map(self_update::update::Releases::into_vec)
        .map_err(|error| {
            let text = format!(
                "could not list releases of {}: {error}",
                downloads.repository
            );
            Fault::new(Blame::Outside, text)
        })
}

fn archive(release: &Listed) -> Option<self_update::update::ReleaseAsset> {
    let ours = |name: &str| name.contains(self_update::get_target()) && name.ends_with(".tar.gz");
    release
        .assets()
        .iter()
        .find(|asset| ours(asset.name()))
        .cloned()
}

/// Downloads a release, checks it, and installs its programs.
pub fn fetch(job: &Build, downloads: &Downloads) -> Result<(), Fault> {
    let began = Instant::now();
    let outside = |what: &str, error: &dyn std::error::Error| {
        Fault::new(
            Blame::Outside,
            format!("could not {what} {}: {error}", job.version.commit),
        )
    };
    let refuse = |why: String| {
        let text = format!("the archive of {} {why}", job.version.commit);
        Fault::new(Blame::Refused, text).on(&job.version.commit)
    };
    let folder = tempfile::tempdir_in(job.home.path())?;
    // The signature covers the file name, and with it the version and the target.
    let name = job.version.source.rsplit('/').next().unwrap_or_default();
    if !name.contains(&job.version.release) || !name.contains(self_update::get_target()) {
        return Err(refuse(format!(
            "is called {name}, which names neither version nor target"
        )));
    }
    let path = folder.path().join(name);
    progress(format!("Downloading {name}"));
    download(&job.version.source, &path, MAX_ARCHIVE)
        .map_err(|error| outside("download", &error))?;
    let sum = folder.path().join("sum");
    download(&format!("{}.sha256", job.version.source), &sum, MAX_SUM)
        .map_err(|error| outside("download the checksum of", &error))?;
    check_sum(&path, &sum).map_err(&refuse)?;
    let key = public_key(&downloads.key)?;
    self_update::update::verify_signature(&path, &[key]).map_err(|error| {
        refuse(format!(
            "is not signed by {}: {error}",
            downloads.key.display()
        ))
    })?;
    let mut programs = Vec::new();
    for program in &job.bins {
        Extract::from_source(&path)
            .extract_file(folder.path(), program)
            .map_err(|error| refuse(format!("has no {program}: {error}")))?;
        programs.push((program.clone(), folder.path().join(program)));
    }
    Release::install(
        &job.home,
        &job.version,
        &programs,
        began.elapsed().as_secs(),
        Vec::new(),
    )
}

fn download(url: &str, to: &Path, most: u64) -> Result<(), self_update::errors::Error> {
    let file = File::create(to)?;
    Download::from_url(url)
        .timeout(PATIENCE)
        .max_download_size(most)
        .download_to(file)
}

fn check_sum(archive: &Path, sum: &Path) -> Result<(), String> {
    let text = fs::read_to_string(sum).map_err(|error| error.to_string())?;
    let expected = text
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let mut bytes = Vec::new();
    let read = File::open(archive).and_then(|file| file.take(MAX_ARCHIVE).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    let found = hex::encode(Sha256::digest(&bytes));
    if found == expected {
        Ok(())
    } else {
        Err("does not match its checksum".to_owned())
    }
}

/// Reads a public key.
pub fn public_key(path: &Path) -> Result<[u8; PUBLIC_KEY_LENGTH], Fault> {
    let config = |why: String| {
        Fault::new(
            Blame::Config,
            format!("release key {}: {why}", path.display()),
        )
    };
    let bytes = file::read_limited(path, MAX_SUM)
        .map_err(|error| config(crate::error::chain(&error)))?
        .ok_or_else(|| config("no such file".into()))?;
    bytes
        .try_into()
        .map_err(|_| config("not a public key of 32 bytes".into()))
}

/// Makes a key pair: `path` for signing, `path.pub` for `--release-key`.
pub fn new_key(path: &Path) -> Result<PathBuf, Fault> {
    if path.exists() {
        return Err(Fault::new(
            Blame::Config,
            format!("{} exists already", path.display()),
        ));
    }
    let key = SigningKey::from_bytes(&rand::random());
    file::write_atomic_private(path, &key.to_keypair_bytes())?;
    let public = path.with_added_extension("pub");
    file::write_atomic(&public, key.verifying_key().as_bytes())?;
    Ok(public)
}

/// Signs an archive in place and writes its checksum beside it.
pub fn sign(archive: &Path, key: &Path) -> Result<(), Fault> {
    let keys = zipsign_api::sign::read_signing_keys([File::open(key)])
        .map_err(|error| Fault::machine(&error))?;
    let name = archive.file_name().unwrap_or_default().as_encoded_bytes();
    let folder = archive
        .parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."));
    let mut signed = tempfile::NamedTempFile::new_in(folder)?;
    copy_and_sign_tar(
        &mut File::open(archive)?,
        signed.as_file_mut(),
        &keys,
        Some(name),
    )
    .map_err(|error| Fault::machine(&error))?;
    signed.as_file_mut().rewind()?;
    let mut bytes = Vec::new();
    signed.as_file_mut().read_to_end(&mut bytes)?;
    file::write_atomic(archive, &bytes)?;
    let line = format!(
        "{}  {}\n",
        hex::encode(Sha256::digest(&bytes)),
        String::from_utf8_lossy(name)
    );
    file::write_atomic(&archive.with_added_extension("sha256"), line.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_up_within_what_is_compatible() {
        let version = |text: &str| Semver::parse(text).unwrap();
        let mut downloads = Downloads {
            repository: "a/b".into(),
            api: None,
            key: "key".into(),
            allow_incompatible: false,
        };
        let now = version("0.3.1");
        let mut goes = |to: &str, allow| {
            downloads.allow_incompatible = allow;
            acceptable(
                &version(to),
                Some(&now),
                Some(&version("0.3.2")),
                &downloads,
            )
        };
        assert!(goes("0.3.3", false));
        assert!(!goes("0.3.1", false), "older than what was accepted once");
        assert!(!goes("0.4.0", false));
        assert!(goes("0.4.0", true));
        assert!(!goes("0.3.4-rc.1", true));
    }
}
