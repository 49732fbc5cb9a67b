//! What a remote, a child and a disk can hand the supervisor.

use std::{cell::LazyCell, time::Duration};

use git2::{Mempack, Oid, Repository};
use shared::status::Status;
use supervisor::{
    error::{Blame, Fault},
    update::{
        state::{
            Polled, UpdateEffect, UpdateEvent, UpdateNow, UpdatePolicy, UpdateState, Urgency,
            Version,
        },
        step::step,
        verify,
    },
};
use tempfile::TempDir;

use crate::{folder, part, write};

/// An allowed-signers file: signers, or a fault of the configuration.
pub fn allowed_signers(text: &[u8]) {
    thread_local!(static FOLDER: LazyCell<TempDir> = const { LazyCell::new(folder) });
    FOLDER.with(|folder| {
        let path = folder.path().join("allowed_signers");
        write(&path, text);
        match verify::check_file(&path) {
            Ok(signers) => assert!((1..=text.len()).contains(&signers)),
            Err(fault) => assert_eq!(fault.blame, Blame::Config, "{fault}"),
        }
    });
}

/// The only commit that anybody signed.
const SIGNED: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
    author A <a@example.org> 1700000000 +0000\n\
    committer A <a@example.org> 1700000000 +0000\n\nsigned\n";

/// Who did; the seed has the signature, and nobody the key.
const SIGNER: &str = "a@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAabScIYtfDDYdYTfFK9pUSMOg9cHP9diMc0eEqfp+N+";

/// A commit, a zero byte, its signature: accepted if it is the signed commit, and only then.
pub fn commit_signature(data: &[u8]) {
    let (Ok(commit), Ok(signature)) =
        (str::from_utf8(part(data, 0)), str::from_utf8(part(data, 1)))
    else {
        return;
    };
    REPOSITORY.with(|place| {
        if let Ok(tip) = place.git.commit_signed(commit, signature, None) {
            let accepted = place.verify(tip);
            assert!(
                accepted.is_err() || commit == SIGNED,
                "accepted: {commit:?}"
            );
        }
        place.objects.reset().expect("memory can be forgotten");
    });
}

/// A repository whose new objects stay in memory.
struct Place {
    folder: TempDir,
    git: &'static Repository,
    objects: Mempack<'static>,
}

thread_local!(static REPOSITORY: LazyCell<Place> = const { LazyCell::new(Place::new) });

impl Place {
    fn new() -> Self {
        let folder = folder();
        let git = Repository::init_bare(folder.path()).expect("a repository can be made");
        // It lives as long as the process.
        let git: &'static Repository = Box::leak(Box::new(git));
        let database = Box::leak(Box::new(git.odb().expect("it has objects")));
        let objects = database.add_new_mempack_backend(1000);
        let place = Self {
            folder,
            git,
            objects: objects.expect("memory can be added"),
        };
        write(&place.signers(), SIGNER.as_bytes());
        place
    }

    fn verify(&self, tip: Oid) -> Result<String, Fault> {
        verify::commits(self.git, tip, None, &self.signers())
    }

    fn signers(&self) -> std::path::PathBuf {
        self.folder.path().join("allowed_signers")
    }
}

/// A child's status file: refused, or written as it is read.
pub fn status_file(json: &[u8]) {
    thread_local!(static FOLDER: LazyCell<TempDir> = const { LazyCell::new(folder) });
    FOLDER.with(|folder| {
        let path = folder.path().join("status.json");
        write(&path, json);
        if let Ok(status) = <Status>::read(&path) {
            let status = status.expect("the file is there");
            let text = serde_json::to_string(&status).expect("it was JSON before");
            assert_eq!(serde_json::from_str(&text).ok(), Some(status));
        }
    });
}

/// A journal, a zero byte, one byte for each event: from whatever state a disk gives back, every
/// event leads to a state that is written as it is read.
pub fn update_journal(data: &[u8]) {
    let Ok(mut state) = serde_json::from_slice::<UpdateState>(part(data, 0)) else {
        return;
    };
    let policy = UpdatePolicy {
        interval: Duration::from_secs(60),
        jitter: Duration::from_secs(1),
        hold_off: Duration::from_secs(10),
        ready_timeout: Duration::from_secs(5),
        probation: Duration::from_secs(30),
        max_wait: Duration::from_secs(100),
        updates: true,
    };
    let mut now = UpdateNow::default();
    let events = part(data, 1)
        .iter()
        .map(|byte| event(*byte, &state_release(&state)));
    let events: Vec<UpdateEvent> = events.take(64).collect();
    for event in std::iter::once(UpdateEvent::Started).chain(events) {
        now.at += Duration::from_secs(7);
        let effects;
        (state, effects) = step(state, event, &now, &policy);
        let runs = effects
            .iter()
            .filter(|effect| matches!(effect, UpdateEffect::Run(_)));
        assert!(runs.count() <= 1, "{effects:?}");
        let text = serde_json::to_string(&state).expect("a state is JSON");
        let again: UpdateState = serde_json::from_str(&text).expect("what was written is readable");
        assert_eq!(serde_json::to_string(&again).ok(), Some(text));
    }
}

fn state_release(state: &UpdateState) -> String {
    let version = state.candidate().or(state.accepted.as_ref());
    version.map_or_else(String::new, |version| version.release.clone())
}

fn event(byte: u8, release: &str) -> UpdateEvent {
    let fault = || Fault::new(Blame::Code, "it does not build");
    let polled = |found| UpdateEvent::Polled {
        upstream: Some(vec!["tip".to_owned()]),
        found,
    };
    let new = Version {
        commit: "new".to_owned(),
        release: "new".to_owned(),
        source: "new".to_owned(),
        summary: String::new(),
        signer: None,
        build: String::new(),
        local: Vec::new(),
        left_out: Vec::new(),
    };
    match byte % 17 {
        0 => UpdateEvent::Started,
        1 => UpdateEvent::ask(Urgency::Asked),
        2 => UpdateEvent::ask(Urgency::Forced),
        3 => UpdateEvent::GoBack,
        4 => polled(Ok(Polled::UpToDate)),
        5 => polled(Ok(Polled::NoRebuild(new))),
        6 => polled(Ok(Polled::New(new))),
        7 => polled(Err(Fault::new(Blame::Outside, "it does not answer"))),
        8 => UpdateEvent::Built(Ok(())),
        9 => UpdateEvent::Built(Err(fault())),
        10 => UpdateEvent::Tested(Ok(())),
        11 => UpdateEvent::Tested(Err(fault())),
        12 => UpdateEvent::Switched(Ok(())),
        13 => UpdateEvent::Tidied,
        14 => UpdateEvent::ChildReady(release.to_owned()),
        15 => UpdateEvent::ChildFailed {
            release: release.to_owned(),
            how: "it ended".to_owned(),
        },
        _ => UpdateEvent::Tick,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else that no other commit is accepted would mean little.
    #[test]
    fn the_signed_commit_is_accepted() {
        let seed = include_bytes!("../corpus/commit_signature/signed");
        let (commit, signature) = (part(seed, 0), part(seed, 1));
        assert_eq!(commit, SIGNED.as_bytes());
        REPOSITORY.with(|place| {
            let signature = str::from_utf8(signature).unwrap();
            let tip = place.git.commit_signed(SIGNED, signature, None).unwrap();
            assert_eq!(place.verify(tip), Ok("a@example.org".to_owned()));
        });
    }
}
