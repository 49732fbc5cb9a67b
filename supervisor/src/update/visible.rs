//! What a build may read: all that is not hidden from it.
//!
//! landlock can only allow. What is hidden below a folder that is seen is left out by allowing each of
//! the folder's other entries, as they are at that moment.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use super::build_environment::{self, BuildStage};
use crate::config::Config;

/// Homes of people, of the user that we are and of others.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// The rest of the system. Variables name files of it (`SHELL`), which are not hidden for that.
const SYSTEM: [&str; 13] = [
    "/usr", "/lib", "/lib64", "/bin", "/sbin", "/opt", "/etc", "/nix", "/proc", "/sys", "/dev",
    "/run", "/var",
];
/// Where the rest of the devices is: disks are secrets too.
pub(super) const ALL_DEVICES: &str = "/dev";
/// What cargo and rustup look for in the folders above the source.
const SETTINGS: [&str; 5] = [
    ".cargo/config.toml",
    ".cargo/config",
    "Cargo.toml",
    "rust-toolchain.toml",
    "rust-toolchain",
];

/// Returns what no build may see, by all its names.
pub(super) fn hidden(config: &Config, home: &Path) -> Vec<PathBuf> {
    let state = state(config);
    let mut hidden: Vec<PathBuf> = HOMES.map(PathBuf::from).into();
    hidden.extend([home, state, &config.repo].map(Path::to_owned));
    hidden.extend(named_by(&config.child.args));
    hidden.extend(linked_from(home));
    let system = |path: &PathBuf| SYSTEM.iter().any(|system| path.starts_with(system));
    let others = build_environment::others().into_iter();
    let others = others.filter(|(path, secret)| *secret || !system(path));
    hidden.extend(others.map(|(path, _)| path));
    // By all its names, and never all of the system.
    hidden.extend(hidden.clone().iter().flat_map(fs::canonicalize));
    let whole = |path: &Path| {
        SYSTEM
            .iter()
            .any(|system| Path::new(system).starts_with(path))
    };
    hidden.retain(|path| !whole(path));
    hidden.push(PathBuf::from(ALL_DEVICES));
    hidden
}

/// The folder of all that the supervisor keeps.
fn state(config: &Config) -> &Path {
    config.home.path().parent().unwrap_or(config.home.path())
}

/// Returns what a build may read besides the folders of cargo and rustup.
pub(super) fn visible(config: &Config, home: &Path, hidden: &[PathBuf]) -> Vec<PathBuf> {
    let build = &config.build;
    let source = config.home.source();
    let mut readable = entries_beside(Path::new("/"), hidden);
    let toolchains =
        build_environment::toolchains(&build_environment::of_build(build, BuildStage::Compile));
    let roots = [home, state(config), &config.repo];
    readable.extend(
        toolchains
            .into_iter()
            .filter(|path| !roots.iter().any(|root| root.starts_with(path))),
    );
    // Our clone borrows its objects.
    readable.push(config.repo.join(".git/objects"));
    for folder in source.ancestors().skip(1) {
        readable.extend(SETTINGS.map(|name| folder.join(name)));
    }
    readable.push(source);
    readable
}

/// Paths in the arguments of the child are its own: wallets, models, configuration.
fn named_by(args: &[OsString]) -> Vec<PathBuf> {
    let named = args.iter().filter_map(|arg| {
        let text = arg.to_str()?;
        let value = text.split_once('=').map_or(text, |(_, value)| value);
        let path = match value.strip_prefix("~/") {
            Some(rest) => env::home_dir()?.join(rest),
            None => PathBuf::from(value),
        };
        (path.is_absolute() && path.exists()).then_some(path)
    });
    named.collect()
}

/// What the home folder keeps elsewhere (`~/.ssh` as a link to another disk).
fn linked_from(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    let links = entries.filter(|entry| {
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        hidden && entry.file_type().is_ok_and(|kind| kind.is_symlink())
    });
    let targets = links.filter_map(|link| fs::canonicalize(link.path()).ok());
    targets
        .filter(|target| !SYSTEM.iter().any(|system| target.starts_with(system)))
        .collect()
}

/// Returns paths that together hold everything below a folder except what is hidden. Symbolic links are
/// left out: what they lead to is seen if it is seen by its own name.
pub(super) fn entries_beside(folder: &Path, hidden: &[PathBuf]) -> Vec<PathBuf> {
    if hidden.iter().any(|path| folder.starts_with(path)) {
        return Vec::new();
    }
    if !hidden.iter().any(|path| path.starts_with(folder)) {
        return vec![folder.to_owned()];
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
        .flat_map(|entry| entries_beside(&entry.path(), hidden))
        .collect()
}

#[cfg(test)]
mod tests {
    use shared::file;

    use super::*;

    #[test]
    fn everything_is_seen_but_what_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a/b/secret/x", "a/b/open", "a/c", "d/e"] {
            file::write_atomic(&at(name), b"").unwrap();
        }
        std::os::unix::fs::symlink(at("a/b/secret"), at("a/link")).unwrap();
        let mut seen = entries_beside(dir.path(), &[at("a/b/secret")]);
        seen.sort();
        assert_eq!(seen, [at("a/b/open"), at("a/c"), at("d")]);
        assert_eq!(
            entries_beside(&at("a/b/secret/x"), &[at("a")]),
            Vec::<PathBuf>::new()
        );
    }

    #[test]
    fn what_the_child_is_told_of_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let args = [
            "--wallet.path",
            &path,
            &format!("--models={path}"),
            "/no/such",
            "relative",
        ];
        assert_eq!(named_by(&args.map(Into::into)), [dir.path(), dir.path()]);
    }
}
