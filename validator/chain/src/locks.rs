//! Where the processes of this user that use one hotkey meet: its locks, and the hashes of the
//! transactions it has signed.
//!
//! Two processes with one hotkey would take the same nonce and push each other's weights out of
//! the pool. So the folder follows from the user alone, from no flag and no variable: processes
//! that were started differently (another `--state-dir`, another `HOME`, by systemd, by pm2) must
//! find the same one. It is `~/.local/state/finetune-vali/hotkeys` in the home that the system's
//! list of users names; users without a home of their own get one in `/var/tmp`, which nobody but
//! its owner can write to, or it is refused. Neither `/tmp` (systemd may give each service its
//! own, and empties it) nor `/run/user` (there only while the user is logged in) would do.
//!
//! Two users of a machine, or two machines, don't meet here: the alarm of [`super::weights::guard`]
//! is for them.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{Uid as UserId, User};
use shared::file::{self, FileError, FileLock, LockError};
use subnet::{Genesis, Hotkey, Netuid};
use subxt::config::substrate::H256;

/// Transactions remembered for each hotkey of a chain: hours of weights. One that is older than
/// the 64 blocks for which it is valid can't land any more.
const REMEMBERED: usize = 64;

/// The largest file of hashes read.
const MAX_BYTES: u64 = 1 << 16;

/// Hashes of chains that nobody used for so long go: those of local chains would pile up.
const STALE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Ends the name of a file of hashes.
const SENT: &str = "sent";

/// The one folder of this user in which processes with the same hotkey meet.
#[derive(Debug, Clone)]
pub(crate) struct Locks {
    folder: PathBuf,
}

/// One hotkey on one chain: what has a nonce.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) genesis: Genesis,
    pub(crate) hotkey: Hotkey,
}

impl Locks {
    /// The only way to come by the folder.
    pub(crate) fn of_this_user() -> Self {
        let user = UserId::effective();
        let listed = User::from_uid(user).ok().flatten();
        let home = listed
            .map(|user| user.dir)
            .filter(|home| home.is_absolute() && owner(home).is_ok_and(|owner| owner == user));
        Self {
            folder: home.map_or_else(
                || PathBuf::from(format!("/var/tmp/finetune-vali-{user}")),
                |home| home.join(".local/state/finetune-vali/hotkeys"),
            ),
        }
    }

    /// Takes the lock of the one validator of a hotkey on a subnet, or says who holds it.
    pub(crate) fn validator(
        &self,
        account: Account,
        netuid: Netuid,
    ) -> Result<FileLock, LockError> {
        let path = self.path(account, &format!("{netuid}.lock"))?;
        let holder = format!("validator of {} on subnet {netuid}", account.hotkey);
        FileLock::try_acquire_vanishing(&path, &holder)
    }

    /// Takes the lock of a hotkey's nonce, or says who holds it.
    pub(crate) fn nonce(&self, account: Account) -> Result<FileLock, LockError> {
        let path = self.path(account, "nonce.lock")?;
        FileLock::try_acquire_vanishing(&path, "setting weights")
    }

    /// Notes a transaction that is about to be sent. Whoever calls it holds the nonce.
    pub(crate) fn remember(&self, account: Account, hash: H256) -> Result<(), FileError> {
        let path = self.path(account, SENT)?;
        let mut hashes = read(&path)?;
        hashes.push(hash);
        let newest = hashes.len().saturating_sub(REMEMBERED);
        let lines: String = hashes[newest..]
            .iter()
            .map(|hash| format!("{}\n", hex::encode(hash.0)))
            .collect();
        file::write_atomic_private(&path, lines.as_bytes())?;
        self.forget_stale();
        Ok(())
    }

    /// Returns whether any process of this user has sent a transaction.
    pub(crate) fn has_sent(&self, account: Account, hash: &H256) -> Result<bool, FileError> {
        Ok(read(&self.path(account, SENT)?)?.contains(hash))
    }

    /// Returns the path of a file, in a folder that is ours alone.
    fn path(&self, account: Account, suffix: &str) -> Result<PathBuf, FileError> {
        own(&self.folder).map_err(FileError::on("use", &self.folder))?;
        let chain = hex::encode(&account.genesis.0[..8]);
        let hotkey = account.hotkey;
        Ok(self.folder.join(format!("{hotkey}.{chain}.{suffix}")))
    }

    fn forget_stale(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let age = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|modified| modified.elapsed().ok());
            let path = entry.path();
            if path.extension() == Some(SENT.as_ref()) && age.is_some_and(|age| age > STALE) {
                // Next time, then.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Makes a folder that only we can write to, or refuses one that others can.
fn own(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != UserId::effective().as_raw() || found.mode() & 0o022 != 0 {
        let text = "it is not a folder that only this user can write to; remove it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

fn owner(path: &Path) -> io::Result<UserId> {
    Ok(UserId::from_raw(fs::metadata(path)?.uid()))
}

fn read(path: &Path) -> Result<Vec<H256>, FileError> {
    if fs::metadata(path).is_ok_and(|found| found.len() > MAX_BYTES) {
        // Not ours: of what we write, sixteen times as much would fit. It goes with the stale ones.
        let aside = path.with_extension(format!("set-aside.{SENT}"));
        fs::rename(path, &aside).map_err(FileError::on("set aside", path))?;
        tracing::warn!(
            path = %path.display(), aside = %aside.display(),
            "the list of our transactions is too large to be ours and was set aside; until the next \
             weights, a twin may be reported that is none"
        );
    }
    let bytes = file::read_limited(path, MAX_BYTES)?.unwrap_or_default();
    let hash = |line: &[u8]| {
        let mut hash = [0; 32];
        hex::decode_to_slice(line, &mut hash).ok()?;
        Some(H256(hash))
    };
    Ok(bytes
        .split(|byte| *byte == b'\n')
        .filter_map(hash)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_grew_too_large_is_set_aside_and_a_new_one_begun() {
        let folder = tempfile::tempdir().unwrap();
        let locks = Locks {
            folder: folder.path().join("hotkeys"),
        };
        let account = Account {
            genesis: Genesis([1; 32]),
            hotkey: Hotkey([2; 32]),
        };
        locks.remember(account, H256([3; 32])).unwrap();
        let path = locks.path(account, SENT).unwrap();
        let large = vec![b'x'; usize::try_from(MAX_BYTES).unwrap() + 1];
        file::write_atomic(&path, &large).unwrap();
        assert!(!locks.has_sent(account, &H256([3; 32])).unwrap());
        locks.remember(account, H256([4; 32])).unwrap();
        assert!(locks.has_sent(account, &H256([4; 32])).unwrap());
        let aside = path.with_extension("set-aside.sent");
        assert_eq!(fs::read(aside).unwrap(), large);
    }
}
