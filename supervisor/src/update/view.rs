//! What a build can find by a name: nothing of what is hidden, but for the parts of it that it may have.
//!
//! Called in a mount namespace of its own. Empty folders are mounted over what is hidden, and in these, under their old
//! names, what may be seen. What was opened before is unchanged, so nothing may be that leads to folders.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{OpenOptionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    libc,
    mount::{MsFlags, mount},
    sys::statvfs::{FsFlags, statvfs},
};

use super::visible::ALL_DEVICES;

/// Names in the folder of devices that programs expect, and lead to what is a process's own.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Something that is seen although it lies below what is hidden.
struct Shown {
    file: File,
    writable: bool,
}

/// Hides, but for what may be read and what may be written too.
pub(super) fn hide<'a>(
    hidden: &[PathBuf],
    readable: impl Iterator<Item = &'a PathBuf>,
    writable: impl Iterator<Item = &'a PathBuf>,
) -> io::Result<()> {
    let masks = masks(hidden);
    // Opened before there is a mask over it. Folders come before what is in them.
    let mut shown = BTreeMap::new();
    let readable = readable.map(|path| (path, false));
    for (path, writable) in readable.chain(writable.map(|path| (path, true))) {
        for path in names(path) {
            if masks.iter().any(|mask| path.starts_with(mask))
                && let Ok(file) = open(&path)
            {
                shown.insert(path, Shown { file, writable });
            }
        }
    }
    let nothing = open(Path::new("/dev/null"))?;
    for mask in &masks {
        cover(mask, &nothing)?;
    }
    for (path, what) in &shown {
        show(path, what)?;
    }
    if masks.iter().any(|mask| mask == Path::new(ALL_DEVICES)) {
        for (name, target) in LINKS {
            symlink(target, Path::new(ALL_DEVICES).join(name))?;
        }
    }
    for mask in masks.iter().filter(|mask| mask.is_dir()) {
        make_read_only(mask)?;
    }
    Ok(())
}

/// Returns what has to be covered: what there is, by its true name, and nothing that lies in another.
fn masks(hidden: &[PathBuf]) -> Vec<PathBuf> {
    let is_true = |path: &&PathBuf| fs::canonicalize(path).is_ok_and(|name| name == **path);
    let mut all: Vec<PathBuf> = hidden.iter().filter(is_true).cloned().collect();
    all.sort();
    all.dedup_by(|path, before| path.starts_with(before));
    all
}

/// By its own name and by the true one.
fn names(path: &Path) -> impl Iterator<Item = PathBuf> {
    [Some(path.to_owned()), fs::canonicalize(path).ok()]
        .into_iter()
        .flatten()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
}

fn cover(mask: &Path, nothing: &File) -> io::Result<()> {
    if !mask.is_dir() {
        return bind(nothing, mask);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some("mode=0755,size=1m");
    Ok(mount(Some("none"), mask, Some("tmpfs"), flags, options)?)
}

fn show(path: &Path, what: &Shown) -> io::Result<()> {
    if what.file.metadata()?.is_dir() {
        fs::create_dir_all(path)?;
    } else if !path.exists() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        File::create_new(path)?;
    }
    bind(&what.file, path)?;
    if what.writable {
        Ok(())
    } else {
        make_read_only(path)
    }
}

/// Makes what is open appear at a path, with all that is mounted in it.
fn bind(file: &File, path: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    let none = None::<&str>;
    Ok(mount(Some(source.as_str()), path, none, flags, none)?)
}

/// Flags that came with the mount must stay: in a user namespace they are locked (mount_namespaces(7)).
fn make_read_only(path: &Path) -> io::Result<()> {
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let has = statvfs(path)?.flags();
    for (flag, kept) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        if has.contains(flag) {
            flags |= kept;
        }
    }
    let none = None::<&str>;
    Ok(mount(none, path, none, flags, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_by_its_true_name_is_covered() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir(at("ab")).unwrap();
        symlink("/", at("all")).unwrap();
        let hidden = ["ab", "a/b", "all", "a", "gone"].map(at);
        assert_eq!(masks(&hidden), ["a", "ab"].map(at));
    }
}
