//! What git calls unchanged is unchanged, in checkouts as git makes them.

use std::{
    fs::{self, File, FileTimes},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use git2::{Oid, Repository};
use tempfile::TempDir;

use super::{MAX_COMMITS, edited_tree, find, refuse_unmerged};

/// A checkout, and a clone that sees its objects.
struct Rooms {
    dir: TempDir,
    source: Repository,
}

impl Rooms {
    /// Commits files as they are, in a repository with some configuration.
    fn new(config: &[(&str, &str)], files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let checkout = dir.path().join("checkout");
        Repository::init(&checkout).unwrap();
        let source = Repository::init(dir.path().join("source")).unwrap();
        let alternates = source.path().join("objects/info/alternates");
        let objects = format!("{}/.git/objects\n", checkout.display());
        shared::file::write_atomic(&alternates, objects.as_bytes()).unwrap();
        let rooms = Self { dir, source };
        for (name, value) in config {
            rooms.git(&["config", name, value]);
        }
        for (file, text) in files {
            rooms.write(file, text);
        }
        rooms.git(&["add", "-A"]);
        rooms.git(&["commit", "-qm", "upstream"]);
        rooms
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("checkout")
    }

    fn git(&self, args: &[&str]) -> String {
        let output = shared::process::blocking_command("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(args)
            .current_dir(self.folder())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "git {args:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.folder().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        shared::file::write_atomic(&path, text.as_bytes()).unwrap();
    }

    /// Writes what is there already, so that only its contents tell that nothing has changed.
    fn touch(&self, file: &str) {
        let text = fs::read_to_string(self.folder().join(file)).unwrap();
        self.write(file, &text);
    }

    fn checkout(&self) -> Repository {
        Repository::open(self.folder()).unwrap()
    }

    /// Returns the tree of the changes, if there are any.
    fn changes(&self) -> Option<Oid> {
        let head = Oid::from_str(&self.git(&["rev-parse", "HEAD"])).unwrap();
        let changes = find(&self.checkout(), &self.source, &[head], true).unwrap();
        let change = Oid::from_str(&changes.last()?.commit).unwrap();
        Some(self.source.find_commit(change).unwrap().tree_id())
    }

    fn read(&self, tree: Oid, file: &str) -> String {
        let tree = self.source.find_tree(tree).unwrap();
        let entry = tree.get_path(Path::new(file)).unwrap();
        let blob = self.source.find_blob(entry.id()).unwrap();
        String::from_utf8(blob.content().to_vec()).unwrap()
    }
}

const ROT: [(&str, &str); 2] = [
    ("filter.rot.clean", "tr a-z n-za-m"),
    ("filter.rot.smudge", "tr a-z n-za-m"),
];

#[test]
fn a_filtered_file_is_changed_when_what_git_keeps_of_it_is() {
    let files = [
        (".gitattributes", "*.secret filter=rot\n"),
        ("a.secret", "hello\n"),
    ];
    let rooms = Rooms::new(&ROT, &files);
    rooms.touch("a.secret");
    assert_eq!(rooms.changes(), None);
    rooms.write("a.secret", "world\n");
    let tree = rooms.changes().unwrap();
    assert_eq!(rooms.read(tree, "a.secret"), "jbeyq\n");
    assert_eq!(
        rooms.git(&["diff", "--cached", "--name-only"]),
        "",
        "the index is as it was"
    );
    assert!(!rooms.folder().join(".git/index.lock").exists());
}

#[test]
fn a_filter_that_is_not_there_is_named() {
    let files = [
        (".gitattributes", "*.secret filter=rot\n"),
        ("a.secret", "hello\n"),
    ];
    let rooms = Rooms::new(&ROT, &files);
    rooms.git(&["config", "filter.rot.clean", "no-such-program"]);
    rooms.git(&["config", "filter.rot.required", "true"]);
    rooms.write("a.secret", "world\n");
    let head = Oid::from_str(&rooms.git(&["rev-parse", "HEAD"])).unwrap();
    let fault = find(&rooms.checkout(), &rooms.source, &[head], true).unwrap_err();
    assert!(fault.message.contains("no-such-program"), "{fault}");
}

#[test]
fn line_ends_are_judged_as_git_judges_them() {
    let rooms = Rooms::new(&[("core.autocrlf", "true")], &[("a.txt", "one\r\ntwo\r\n")]);
    rooms.touch("a.txt");
    assert_eq!(rooms.changes(), None);
    rooms.write("a.txt", "one\r\nthree\r\n");
    let tree = rooms.changes().unwrap();
    assert_eq!(rooms.read(tree, "a.txt"), "one\nthree\n");
    assert_eq!(edited_tree(&rooms.checkout(), &rooms.source).unwrap(), tree);
}

#[test]
fn what_a_sparse_checkout_leaves_out_is_not_deleted() {
    let files = [("src/a.rs", "a\n"), ("docs/b.md", "b\n"), ("top", "t\n")];
    let rooms = Rooms::new(&[], &files);
    rooms.git(&["sparse-checkout", "set", "src"]);
    assert!(!rooms.folder().join("docs").exists());
    assert_eq!(rooms.changes(), None);
    fs::remove_file(rooms.folder().join("top")).unwrap();
    let tree = rooms.changes().unwrap();
    assert_eq!(rooms.read(tree, "docs/b.md"), "b\n");
    assert!(
        rooms
            .source
            .find_tree(tree)
            .unwrap()
            .get_name("top")
            .is_none()
    );
    assert_eq!(edited_tree(&rooms.checkout(), &rooms.source).unwrap(), tree);
    // An index that libgit2 does not read.
    rooms.git(&["sparse-checkout", "set", "--sparse-index", "src"]);
    assert_eq!(rooms.changes(), Some(tree));
}

#[test]
fn an_edit_in_the_same_instant_as_the_index_is_seen() {
    let config = [("core.trustctime", "false"), ("core.checkStat", "minimal")];
    let rooms = Rooms::new(&config, &[("a", "old\n")]);
    let then = UNIX_EPOCH + Duration::from_secs(shared::clock::unix_seconds() - 3600);
    let date = |file: &str| {
        let file = File::options().write(true).open(rooms.folder().join(file));
        let times = FileTimes::new().set_modified(then);
        file.unwrap().set_times(times).unwrap();
    };
    date("a");
    rooms.git(&["update-index", "--refresh"]);
    date(".git/index");
    rooms.write("a", "new\n");
    date("a");
    let tree = rooms.changes().unwrap();
    assert_eq!(rooms.read(tree, "a"), "new\n");
}

#[test]
fn a_submodule_at_another_commit_is_no_edit() {
    let rooms = Rooms::new(&[], &[("a", "a\n")]);
    let part = rooms.folder().join("part");
    Repository::init(&part).unwrap();
    let git = |args: &[&str]| rooms.git(&[&["-C", "part"], args].concat());
    git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    rooms.git(&["add", "part"]);
    rooms.git(&["commit", "-qm", "part"]);
    git(&["commit", "-q", "--allow-empty", "-m", "two"]);
    assert_eq!(rooms.changes(), None);
    rooms.write("a", "b\n");
    let tree = rooms.changes().unwrap();
    let part = |tree: Oid| {
        let tree = rooms.source.find_tree(tree).unwrap();
        tree.get_name("part").unwrap().id().to_string()
    };
    assert_eq!(part(tree), rooms.git(&["rev-parse", "HEAD:part"]));
}

#[test]
fn unmerged_files_are_named() {
    let rooms = Rooms::new(&[], &[("dir/a", "a\n")]);
    refuse_unmerged(&rooms.checkout()).unwrap();
    rooms.git(&["checkout", "-qb", "other"]);
    rooms.write("dir/a", "b\n");
    rooms.git(&["commit", "-qam", "b"]);
    rooms.git(&["checkout", "-q", "-"]);
    rooms.write("dir/a", "c\n");
    rooms.git(&["commit", "-qam", "c"]);
    let merge = shared::process::blocking_command("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(["merge", "-q", "other"])
        .current_dir(rooms.folder())
        .output()
        .unwrap();
    assert!(!merge.status.success());
    let fault = refuse_unmerged(&rooms.checkout()).unwrap_err();
    assert!(fault.message.ends_with("unmerged files: dir/a"), "{fault}");
}

#[test]
fn more_commits_than_can_be_carried_along_are_refused_and_the_newest_named() {
    let rooms = Rooms::new(&[], &[("a", "a\n")]);
    let checkout = rooms.checkout();
    let upstream = checkout.head().unwrap().target().unwrap();
    let who = git2::Signature::now("t", "t@example.org").unwrap();
    let add = |name: &str| {
        let tip = checkout.head().unwrap().peel_to_commit().unwrap();
        let tree = tip.tree().unwrap();
        let commit = checkout.commit(Some("HEAD"), &who, &who, name, &tree, &[&tip]);
        commit.unwrap();
    };
    for number in 0..MAX_COMMITS {
        add(&number.to_string());
    }
    let all = find(&checkout, &rooms.source, &[upstream], true).unwrap();
    assert_eq!(all.len(), MAX_COMMITS);
    assert_eq!(all[0].summary, "0");
    add("newest");
    let fault = find(&checkout, &rooms.source, &[upstream], true).unwrap_err();
    assert!(fault.message.contains("more than 500 commits"), "{fault}");
    let named = find(&checkout, &rooms.source, &[upstream], false).unwrap();
    assert_eq!(named.last().unwrap().summary, "newest");
}
