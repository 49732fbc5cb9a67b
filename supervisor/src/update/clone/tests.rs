//! Our clone is kept small, and keeps what it must.

use std::fs;

use git2::{Oid, Repository};
use tempfile::TempDir;

use super::{is_sound, keep, names, open, tidy_above};
use crate::home::Home;

struct Rooms {
    _dir: TempDir,
    home: Home,
    checkout: Repository,
}

fn rooms() -> Rooms {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::of(dir.path(), "app");
    let checkout = Repository::init(dir.path().join("checkout")).unwrap();
    commit(&checkout, "HEAD", "one");
    Rooms {
        _dir: dir,
        home,
        checkout,
    }
}

/// Makes a commit with a file of its own, without parents.
fn commit(repository: &Repository, reference: &str, name: &str) -> Oid {
    let mut builder = repository.treebuilder(None).unwrap();
    let blob = repository.blob(name.as_bytes()).unwrap();
    builder.insert(name, blob, 0o100_644).unwrap();
    let tree = repository.find_tree(builder.write().unwrap()).unwrap();
    let who = git2::Signature::now("t", "t@example.org").unwrap();
    let commit = repository.commit(Some(reference), &who, &who, name, &tree, &[]);
    commit.unwrap()
}

#[test]
fn references_that_are_not_kept_go() {
    let rooms = rooms();
    let source = open(&rooms.home, &rooms.checkout).unwrap();
    let [a, b] = ["a", "b"].map(|name| commit(&source, &format!("refs/tags/{name}"), name));
    let count = || {
        source
            .references_glob("refs/supervisor/have/*")
            .unwrap()
            .count()
    };
    keep(&source, [a, b, a].into_iter()).unwrap();
    assert_eq!(count(), 2);
    keep(&source, std::iter::once(b)).unwrap();
    assert_eq!(count(), 1);
    keep(&source, std::iter::once(Oid::from_bytes(&[1; 20]).unwrap())).unwrap();
    assert_eq!(count(), 0);
}

#[test]
fn many_packs_and_objects_become_one_pack_of_what_is_kept() {
    let rooms = rooms();
    let source = open(&rooms.home, &rooms.checkout).unwrap();
    let kept = commit(&source, "refs/supervisor/have/1", "kept");
    let lost = commit(&source, "refs/supervisor/have/2", "lost");
    let borrowed = rooms.checkout.head().unwrap().target().unwrap();
    let named = source.find_reference("refs/supervisor/have/2");
    named.unwrap().delete().unwrap();
    tidy_above(&source, &rooms.checkout, 9, 9).unwrap();
    assert!(
        source.find_commit(lost).is_ok(),
        "too little to be worth it"
    );
    tidy_above(&source, &rooms.checkout, 9, 1).unwrap();
    drop(source);
    let source = open(&rooms.home, &rooms.checkout).unwrap();
    let tree = source.find_commit(kept).unwrap().tree().unwrap();
    assert!(
        source
            .find_blob(tree.get_name("kept").unwrap().id())
            .is_ok()
    );
    assert!(source.find_commit(borrowed).is_ok());
    assert!(source.find_commit(lost).is_err());
    let packs = || names(&source.path().join("objects/pack"));
    assert_eq!(
        packs().iter().filter(|name| name.contains(".pack")).count(),
        1
    );
    // Again, with that pack as one of many: it is the same.
    let before = packs();
    tidy_above(&source, &rooms.checkout, 0, 9).unwrap();
    assert_eq!(packs(), before);
    assert!(is_sound(&rooms.home));
}

#[test]
fn what_a_killed_worker_left_is_removed_and_nothing_else() {
    let rooms = rooms();
    let source = open(&rooms.home, &rooms.checkout).unwrap();
    let named = commit(&source, "refs/tags/tmp_tag", "a");
    let git = source.path().to_owned();
    drop(source);
    for stale in [
        "objects/pack/pack_git2_ab12",
        "objects/ab/tmp_object_git2_cd34",
    ] {
        let path = git.join(stale);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        shared::file::write_atomic(&path, b"half").unwrap();
    }
    fs::create_dir(git.join("tmp-ef56")).unwrap();
    let source = open(&rooms.home, &rooms.checkout).unwrap();
    assert!(!git.join("tmp-ef56").exists());
    assert!(names(&git.join("objects/pack")).is_empty());
    assert!(names(&git.join("objects/ab")).is_empty());
    assert_eq!(source.refname_to_id("refs/tags/tmp_tag").unwrap(), named);
}

#[test]
fn a_clone_without_what_it_names_is_not_sound() {
    let rooms = rooms();
    let source = open(&rooms.home, &rooms.checkout).unwrap();
    assert!(is_sound(&rooms.home));
    commit(&source, "refs/tags/a", "a");
    assert!(is_sound(&rooms.home));
    for folder in names(&source.path().join("objects")) {
        if folder.len() == 2 {
            fs::remove_dir_all(source.path().join("objects").join(folder)).unwrap();
        }
    }
    assert!(!is_sound(&rooms.home));
}
