//! SSH signatures of commits, checked against an allowed-signers file. Fails closed.

use std::path::Path;

use git2::{Commit, Oid, Repository, Sort};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use ssh_key::{PublicKey, SshSig};

use crate::error::{Blame, Fault};

const NAMESPACE: &str = "git";
const MAX_FILE: u64 = 1 << 20;
const MAX_COMMITS: usize = 10_000;
/// How far a commit's clock may be ahead of ours, in seconds.
const CLOCK_SKEW: i64 = 3600;

/// One line of an allowed-signers file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signer {
    name: String,
    key: PublicKey,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

/// Checks `tip` and, when `since` is given, every commit after that one. Returns who signed `tip`.
pub fn commits(
    repository: &Repository,
    tip: Oid,
    since: Option<Oid>,
    signers: &Path,
) -> Result<String, Fault> {
    let signers = read(signers)?;
    let now = shared::clock::now();
    if let Some(since) = since {
        for oid in between(repository, since, tip, MAX_COMMITS)? {
            commit(repository, oid, &signers, now)?;
        }
    }
    commit(repository, tip, &signers, now)
}

/// Returns the commits of `tip` that `since` does not have. More than can be looked at are refused:
/// any of them may be unsigned.
fn between(repository: &Repository, since: Oid, tip: Oid, most: usize) -> Result<Vec<Oid>, Fault> {
    let mut walk = repository.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL)?;
    walk.push(tip)?;
    // One that is lost hides nothing, so that all of history must be signed.
    if repository.find_commit(since).is_ok() {
        walk.hide(since)?;
    }
    let new: Vec<Oid> = walk.take(most + 1).collect::<Result<_, _>>()?;
    if new.len() > most {
        let text = format!(
            "more than {most} new commits up to {tip:.12}, too many to check the signatures of"
        );
        return Err(Fault::new(Blame::Refused, text)
            .hint("look at them yourself, and start once without --require-signed-all")
            .on(tip));
    }
    Ok(new)
}

fn commit(
    repository: &Repository,
    oid: Oid,
    signers: &[Signer],
    now: Timestamp,
) -> Result<String, Fault> {
    let refuse = |why: String| {
        let hint = "nothing of it was built; the running version stays";
        Fault::new(Blame::Refused, format!("commit {oid:.12} {why}"))
            .hint(hint)
            .on(oid)
    };
    let Ok((signature, data)) = repository.extract_signature(&oid, None) else {
        return Err(refuse("is not signed".into()));
    };
    let signature = SshSig::from_pem(&*signature)
        .map_err(|error| refuse(format!("has no readable SSH signature: {error}")))?;
    let known: Vec<&Signer> = signers
        .iter()
        .filter(|signer| signer.key.key_data() == signature.public_key())
        .collect();
    let Some(first) = known.first() else {
        let print = signature.public_key().fingerprint(ssh_key::HashAlg::Sha256);
        return Err(refuse(format!(
            "is signed by {print}, who is not an allowed signer"
        )));
    };
    first
        .key
        .verify(NAMESPACE, &data, &signature)
        .map_err(|_| refuse(format!("has a signature of {} that is wrong", first.name)))?;
    let when = commit_time(&repository.find_commit(oid)?)?;
    if when.as_second() > now.as_second() + CLOCK_SKEW {
        return Err(refuse("is dated in the future".into()));
    }
    // An expired key could date its commits back, so it must be valid now too.
    let valid = |signer: &&&Signer| [when, now].iter().all(|time| signer.covers(*time));
    match known.iter().find(valid) {
        Some(signer) => Ok(signer.name.clone()),
        None => Err(refuse(format!(
            "is signed by {} outside the key's validity",
            first.name
        ))),
    }
}

fn commit_time(commit: &Commit<'_>) -> Result<Timestamp, Fault> {
    Timestamp::from_second(commit.time().seconds()).map_err(|error| Fault::machine(&error))
}

impl Signer {
    fn covers(&self, time: Timestamp) -> bool {
        self.after.is_none_or(|after| time >= after)
            && self.before.is_none_or(|before| time < before)
    }
}

fn read(path: &Path) -> Result<Vec<Signer>, Fault> {
    let config = |why: String| {
        Fault::new(
            Blame::Config,
            format!("allowed signers {}: {why}", path.display()),
        )
    };
    let bytes = shared::file::read_limited(path, MAX_FILE)
        .map_err(|error| config(shared::causes::one_line(&error)))?
        .ok_or_else(|| config("no such file".into()))?;
    let text = String::from_utf8(bytes).map_err(|_| config("not text".into()))?;
    let mut signers = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            let signer =
                parse(line).map_err(|why| config(format!("line {}: {why}", number + 1)))?;
            signers.extend(signer);
        }
    }
    if signers.is_empty() {
        return Err(config("no signer for git in it".into()));
    }
    Ok(signers)
}

/// Reads `principals [options] keytype base64 [comment]`; `None` for a key not meant for git.
fn parse(line: &str) -> Result<Option<Signer>, String> {
    let mut words = split_quoted(line).into_iter();
    let name = words.next().ok_or("empty")?;
    let rest: Vec<String> = words.collect();
    let key_at = rest
        .iter()
        .position(|word| {
            word.starts_with("ssh-") || word.starts_with("ecdsa-") || word.starts_with("sk-")
        })
        .ok_or("no public key")?;
    let key = rest[key_at..]
        .iter()
        .take(2)
        .cloned()
        .collect::<Vec<_>>()
        .join(" ");
    let key = PublicKey::from_openssh(&key).map_err(|error| format!("public key: {error}"))?;
    let mut signer = Signer {
        name,
        key,
        after: None,
        before: None,
    };
    let options = rest[..key_at].join(",");
    for option in split_options(&options) {
        let (key, value) = option.split_once('=').unwrap_or((&option, ""));
        match key.to_ascii_lowercase().as_str() {
            "namespaces"
                if !value
                    .split(',')
                    .any(|name| matches!(name.trim(), NAMESPACE | "*")) =>
            {
                return Ok(None);
            }
            "namespaces" => {}
            "valid-after" => signer.after = Some(time(value)?),
            "valid-before" => signer.before = Some(time(value)?),
            "cert-authority" => return Err("certificates are not supported".into()),
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(Some(signer))
}

/// Splits at blanks outside of double quotes, which stay.
fn split_quoted(line: &str) -> Vec<String> {
    split_at(line, char::is_whitespace)
}

/// Splits at commas outside of double quotes, which go.
fn split_options(options: &str) -> Vec<String> {
    split_at(options, |letter| letter == ',')
        .iter()
        .map(|word| word.replace('"', ""))
        .collect()
}

fn split_at(text: &str, separator: impl Fn(char) -> bool) -> Vec<String> {
    let mut quoted = false;
    let words = text.split(|letter: char| {
        quoted ^= letter == '"';
        !quoted && separator(letter)
    });
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Reads `YYYYMMDD[HHMM[SS]][Z]`: local time unless it ends in Z.
fn time(value: &str) -> Result<Timestamp, String> {
    let (digits, zone) = match value.strip_suffix('Z') {
        Some(digits) => (digits, TimeZone::UTC),
        None => (value, TimeZone::system()),
    };
    if !matches!(digits.len(), 8 | 12 | 14) {
        return Err(format!("time {value} is not YYYYMMDD[HHMM[SS]][Z]"));
    }
    DateTime::strptime("%Y%m%d%H%M%S", format!("{digits:0<14}"))
        .and_then(|time| time.to_zoned(zone))
        .map(|zoned| zoned.timestamp())
        .map_err(|error| format!("time {value}: {error}"))
}

/// Checks that the file can be used, for `doctor`; returns the number of signers.
pub fn check_file(path: &Path) -> Result<usize, Fault> {
    read(path).map(|signers| signers.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn lines_of_an_allowed_signers_file() {
        let signer = parse(&format!("a@b,c@d {KEY} note")).unwrap().unwrap();
        assert_eq!((signer.name.as_str(), signer.after), ("a@b,c@d", None));
        let line = format!("a@b namespaces=\"file,git\",valid-before=\"20300101Z\" {KEY}");
        let signer = parse(&line).unwrap().unwrap();
        assert_eq!(signer.before.unwrap().to_string(), "2030-01-01T00:00:00Z");
        assert!(!signer.covers("2030-01-01T00:00:00Z".parse().unwrap()));
        assert!(
            parse(&format!("a@b namespaces=\"file\" {KEY}"))
                .unwrap()
                .is_none()
        );
        for wrong in [
            "a@b",
            "a@b ssh-ed25519 AAAA",
            "a@b cert-authority {KEY}",
            "a@b odd=1 {KEY}",
        ] {
            assert!(parse(&wrong.replace("{KEY}", KEY)).is_err(), "{wrong}");
        }
        assert_eq!(
            time("203001020304Z").unwrap().to_string(),
            "2030-01-02T03:04:00Z"
        );
        assert!(time("2030").is_err());
    }

    #[test]
    fn more_commits_than_can_be_checked_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::init(dir.path()).unwrap();
        let who = git2::Signature::now("t", "t@example.org").unwrap();
        let tree = repository.treebuilder(None).unwrap().write().unwrap();
        let tree = repository.find_tree(tree).unwrap();
        let mut commits: Vec<Oid> = Vec::new();
        for number in 0..5 {
            let parent = commits
                .last()
                .map(|id| repository.find_commit(*id).unwrap());
            let parents: Vec<&Commit<'_>> = parent.iter().collect();
            let text = format!("{number}");
            let id = repository.commit(Some("HEAD"), &who, &who, &text, &tree, &parents);
            commits.push(id.unwrap());
        }
        let (first, tip) = (commits[0], commits[4]);
        assert_eq!(between(&repository, first, tip, 4).unwrap().len(), 4);
        let fault = between(&repository, first, tip, 3).unwrap_err();
        assert_eq!(fault.blame, Blame::Refused);
        let lost = Oid::from_bytes(&[1; 20]).unwrap();
        assert_eq!(between(&repository, lost, tip, 9).unwrap().len(), 5);
    }
}
