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
    release_list::{self, MAX_LIST, SignedList, Trust},
    state::{Polled, Version},
};
use crate::{
    config::{Config, ReleaseSource},
    error::{Blame, Fault},
    job::{Poll, Reach, progress},
};

const MAX_ARCHIVE: u64 = 1 << 30;
/// Lists of releases that are looked at: newer ones come first.
const MAX_LISTS: usize = 3;
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
    let listed = list(source)?;
    let signed = signed_list(config, source, &listed, poll.reach != Reach::Dry)?;
    let newest = listed
        .into_iter()
        .filter_map(|release| Some((parse(release.version())?, release)))
        .filter(|(version, _)| match &source.pin {
            Some(pin) => parse(pin).as_ref() == Some(version),
            None => {
                signed.objection(version).is_none()
                    && acceptable(version, accepted.as_ref(), trusted.as_ref(), source)
            }
        })
        .max_by(|(a, _), (b, _)| a.cmp(b));
    let objection = accepted
        .as_ref()
        .and_then(|version| signed.objection(version));
    let Some((version, release)) = newest else {
        return match objection {
            Some(why) => Err(withdrawn(&why)),
            None => nothing(source, poll),
        };
    };
    if let Some(why) = signed.objection(&version) {
        return Err(withdrawn(&why));
    }
    if Some(&version) == accepted.as_ref() {
        return Ok(Polled::UpToDate);
    }
    let asset = archive(&release)
        .filter(|asset| signed.archive(asset.name()).is_some())
        .ok_or_else(|| Fault::new(Blame::Outside, format!("{version} has no archive for us")))?;
    Ok(Polled::New(Version {
        commit: format!("v{version}"),
        release: version.to_string(),
        source: asset.download_url().to_owned(),
        summary: release.name().chars().take(120).collect(),
        signer: Some(format!(
            "{} of {} release keys",
            source.threshold,
            source.keys.len()
        )),
        build: String::new(),
        local: Vec::new(),
        left_out: Vec::new(),
    }))
}

fn withdrawn(why: &str) -> Fault {
    Fault::new(Blame::Refused, why)
        .hint("there is nothing newer yet; `supervisor rollback` goes back to what ran before")
}

/// Finds the newest list of releases that is well signed. `lasting`: none older is taken from now on.
fn signed_list(
    config: &Config,
    source: &ReleaseSource,
    listed: &[Listed],
    lasting: bool,
) -> Result<SignedList, Fault> {
    let trust = Trust::read(source)?;
    let assets = listed.iter().flat_map(Listed::assets);
    let lists = assets.filter(|asset| asset.name() == release_list::NAME);
    let mut newest: Option<SignedList> = None;
    let mut problem = "does not exist".to_owned();
    for asset in lists.take(MAX_LISTS) {
        let folder = tempfile::tempdir_in(config.home.path())?;
        let path = folder.path().join(release_list::NAME);
        if let Err(error) = download(asset.download_url(), &path, MAX_LIST) {
            problem = format!("could not be downloaded: {error}");
            continue;
        }
        let bytes = fs::read(&path)?;
        let now = shared::clock::now();
        match SignedList::open(&bytes, &trust, &source.repository, now) {
            Ok(list)
                if newest
                    .as_ref()
                    .is_none_or(|known| known.number < list.number) =>
            {
                newest = Some(list);
            }
            Ok(_) => {}
            Err(why) => problem = why,
        }
    }
    let list = newest.ok_or_else(|| {
        let (name, repository) = (release_list::NAME, &source.repository);
        let text = format!("the {name} of {repository} {problem}");
        Fault::new(Blame::Outside, text).hint("see docs/supervisor.md, Prebuilt releases")
    })?;
    list.advance(&config.home, lasting)?;
    Ok(list)
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
    let signed = signed_list(config, source, &list(source)?, true)?;
    let objection = parse(&version.commit).and_then(|version| signed.objection(&version));
    if let Some(why) = objection {
        return Err(withdrawn(&why).on(&version.commit));
    }
    let expected = signed.archive(name).unwrap_or_default();
    check_sum(&path, expected).map_err(&refuse)?;
    let keys = Trust::read(source)?.keys();
    self_update::update::verify_signature(&path, &keys)
        .map_err(|error| refuse(format!("is not signed by a release key: {error}")))?;
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

fn check_sum(archive: &Path, expected: &str) -> Result<(), String> {
    let mut bytes = Vec::new();
    let read = File::open(archive).and_then(|file| file.take(MAX_ARCHIVE).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if hex::encode(Sha256::digest(&bytes)) == expected.to_ascii_lowercase() {
        Ok(())
    } else {
        Err("is not the one in the signed list of releases".to_owned())
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
            keys: vec!["key".into()],
            threshold: 1,
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
