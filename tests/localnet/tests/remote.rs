//! The git remote is fetched from and its commits are signed.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::path::Path;

use git2::{Oid, Repository, Signature};
use localnet::remote::{Origin, Remote};
use ssh_key::{PublicKey, SshSig};

fn write(checkout: &Path, text: &str) {
    shared::file::write_atomic(&checkout.join("src/main.rs"), text.as_bytes()).unwrap();
}

/// A checkout with a file in a folder and a change that was not committed.
fn checkout(path: &Path) {
    let repository = Repository::init(path).unwrap();
    write(path, "fn main() {}\n");
    let mut index = repository.index().unwrap();
    index
        .add_all(["*"], git2::IndexAddOption::DEFAULT, None)
        .unwrap();
    let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
    let me = Signature::now("me", "me@localhost").unwrap();
    repository
        .commit(Some("HEAD"), &me, &me, "first", &tree, &[])
        .unwrap();
    write(path, "changed");
}

async fn remote(folder: &Path) -> Remote {
    checkout(&folder.join("source"));
    Remote::start(0, Origin::new(&folder.join("source/src"), folder))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_of_fetching_see_every_push() {
    let dir = tempfile::tempdir().unwrap();
    let remote = remote(dir.path()).await;
    assert_eq!(remote.read("src/main.rs").unwrap(), "fn main() {}\n");
    for (name, url) in [("file", remote.file_url()), ("http", remote.http_url())] {
        let clone = dir.path().join(name);
        let clone = Repository::clone(&url, clone).unwrap();
        let head = || {
            clone
                .find_reference("refs/remotes/origin/main")
                .unwrap()
                .target()
                .unwrap()
        };
        assert_eq!(head().to_string(), remote.tip().unwrap());
        let new = remote
            .push("Change it", &[("src/deep/new.rs", b"// new\n")])
            .unwrap();
        clone
            .find_remote("origin")
            .unwrap()
            .fetch(&["main"], None, None)
            .unwrap();
        assert_eq!(head().to_string(), new);
        let tree = clone.find_commit(head()).unwrap().tree().unwrap();
        assert!(tree.get_path(Path::new("src/deep/new.rs")).is_ok());
        assert!(tree.get_path(Path::new("src/main.rs")).is_ok());
    }
    assert!(remote.server.traffic.bytes("git-upload-pack") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_those_of_the_allowed_signer() {
    let dir = tempfile::tempdir().unwrap();
    let remote = remote(dir.path()).await;
    let allowed = std::fs::read_to_string(remote.allowed_signers()).unwrap();
    let public = allowed.split_once("namespaces=\"git\" ").unwrap().1;
    let public = PublicKey::from_openssh(public.trim()).unwrap();
    let repository = Repository::open_bare(remote.path()).unwrap();
    let signed = remote.push("Signed", &[("a", b"1")]).unwrap();
    let id = Oid::from_str(&signed).unwrap();
    let (signature, content) = repository.extract_signature(&id, None).unwrap();
    let signature: SshSig = signature.as_str().unwrap().parse().unwrap();
    public.verify("git", &content, &signature).unwrap();

    let unsigned = remote.push_unsigned("Unsigned", &[("a", b"2")]).unwrap();
    let id = Oid::from_str(&unsigned).unwrap();
    assert!(repository.extract_signature(&id, None).is_err());
    remote.reset(&signed).unwrap();
    assert_eq!(remote.tip().unwrap(), signed);
}
