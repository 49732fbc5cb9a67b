//! The release channel: signed archives are downloaded instead of commits being built.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use self_update::{Download, Extract, backends::github::ReleaseList, update::Release as Listed};
use semver::Version as Semver;
use sha2::{Digest, Sha256};

use super::{
    release::Release,
    release_key::public_key,
    state::{Polled, Version},
};
use crate::{
    config::{Config, ReleaseSource},
    error::{Blame, Fault},
    job::{Poll, progress},
};

const MAX_ARCHIVE: u64 = 1 << 30;
const MAX_SUM: u64 = 1 << 16;
const PATIENCE: Duration = Duration::from_mins(30);

/// Looks for a newer release for this machine.
pub(crate) fn poll(config: &Config, source: &ReleaseSource, poll: &Poll) -> Result<Polled, Fault> {
    if let Some(accepted) = &poll.accepted
        && !Release::is_there(&config.home, &accepted.release)
    {
        // Somebody removed what should be running.
        return Ok(Polled::New(accepted.clone()));
    }
    let accepted = poll
        .accepted
        .as_ref()
        .and_then(|version| parse(&version.commit));
    let trusted = poll.trusted.as_deref().and_then(parse);
    let newest = list(source)?
        .into_iter()
        .filter_map(|release| Some((parse(release.version())?, release)))
        .filter(|(version, _)| match &source.pin {
            Some(pin) => parse(pin).as_ref() == Some(version),
            None => acceptable(version, accepted.as_ref(), trusted.as_ref(), source),
        })
        .max_by(|(a, _), (b, _)| a.cmp(b));
    let Some((version, release)) = newest else {
        return nothing(source, poll);
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
        signer: Some(source.key.display().to_string()),
        build: String::new(),
        local: Vec::new(),
        left_out: Vec::new(),
    }))
}

fn nothing(source: &ReleaseSource, poll: &Poll) -> Result<Polled, Fault> {
    if poll.accepted.is_some() && source.pin.is_none() {
        return Ok(Polled::UpToDate);
    }
    let what = source
        .pin
        .as_deref()
        .map_or_else(String::new, |pin| format!(" {pin}"));
    let target = self_update::get_target();
    let text = format!("{} has no release{what} for {target}", source.repository);
    Err(Fault::new(Blame::Outside, text))
}

/// Never back, never to a pre-release, and not to an incompatible version unless allowed.
fn acceptable(
    version: &Semver,
    accepted: Option<&Semver>,
    trusted: Option<&Semver>,
    source: &ReleaseSource,
) -> bool {
    let compatible = |old: &Semver| {
        old.major == version.major && (version.major > 0 || old.minor == version.minor)
    };
    version.pre.is_empty()
        && trusted.is_none_or(|trusted| version >= trusted)
        && accepted.is_none_or(|old| source.allow_incompatible || compatible(old))
}

fn parse(tag: &str) -> Option<Semver> {
    Semver::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

fn list(source: &ReleaseSource) -> Result<Vec<Listed>, Fault> {
    let Some((owner, name)) = source.repository.split_once('/') else {
        let text = format!("{:?} is not OWNER/NAME", source.repository);
        return Err(Fault::new(Blame::Config, text));
    };
    let mut list = ReleaseList::configure();
    list.repo_owner(owner).repo_name(name);
    if let Some(api) = &source.api {
        list.api_base_url(api.trim_end_matches('/'));
    }
    let fetched = list.build().and_then(|list| list.fetch());
    fetched
        .map(self_update::update::Releases::into_vec)
        .map_err(|error| {
            let text = format!("could not list releases of {}: {error}", source.repository);
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
pub(crate) fn fetch(
    config: &Config,
    source: &ReleaseSource,
    version: &Version,
) -> Result<(), Fault> {
    let began = Instant::now();
    let outside = |what: &str, error: &dyn std::error::Error| {
        Fault::new(
            Blame::Outside,
            format!("could not {what} {}: {error}", version.commit),
        )
    };
    let refuse = |why: String| {
        let text = format!("the archive of {} {why}", version.commit);
        Fault::new(Blame::Refused, text).on(&version.commit)
    };
    let folder = tempfile::tempdir_in(config.home.path())?;
    // The signature covers the file name, and with it the version and the target.
    let name = version.source.rsplit('/').next().unwrap_or_default();
    if !name.contains(&version.release) || !name.contains(self_update::get_target()) {
        return Err(refuse(format!(
            "is called {name}, which names neither version nor target"
        )));
    }
    let path = folder.path().join(name);
    progress(format!("Downloading {name}"));
    download(&version.source, &path, MAX_ARCHIVE).map_err(|error| outside("download", &error))?;
    let sum = folder.path().join("sum");
    download(&format!("{}.sha256", version.source), &sum, MAX_SUM)
        .map_err(|error| outside("download the checksum of", &error))?;
    check_sum(&path, &sum).map_err(&refuse)?;
    let key = public_key(&source.key)?;
    self_update::update::verify_signature(&path, &[key]).map_err(|error| {
        refuse(format!(
            "is not signed by {}: {error}",
            source.key.display()
        ))
    })?;
    let mut programs = Vec::new();
    for program in &config.build.bins {
        Extract::from_source(&path)
            .extract_file(folder.path(), program)
            .map_err(|error| refuse(format!("has no {program}: {error}")))?;
        programs.push((program.clone(), folder.path().join(program)));
    }
    Release::install(
        &config.home,
        version,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_up_within_what_is_compatible() {
        let version = |text: &str| Semver::parse(text).unwrap();
        let mut source = ReleaseSource {
            pin: None,
            repository: "a/b".into(),
            api: None,
            key: "key".into(),
            allow_incompatible: false,
        };
        let now = version("0.3.1");
        let mut goes = |to: &str, allow| {
            source.allow_incompatible = allow;
            acceptable(&version(to), Some(&now), Some(&version("0.3.2")), &source)
        };
        assert!(goes("0.3.3", false));
        assert!(!goes("0.3.1", false), "older than what was accepted once");
        assert!(!goes("0.4.0", false));
        assert!(goes("0.4.0", true));
        assert!(!goes("0.3.4-rc.1", true));
    }
}
