//! Memory for a secret: not swapped, not in core dumps, gone in children, and where the kernel has
//! `memfd_secret` (5.14) readable by nobody but this process, not even through `/proc` or a debugger.

use std::{
    alloc::{Layout, handle_alloc_error},
    fmt,
    ops::Deref,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr::{self, NonNull},
};

use nix::{errno::Errno, libc};
use zeroize::Zeroize as _;

/// The stack below a caller that may hold something of a secret that was made there.
const FRAMES: usize = 16;
const FRAME: usize = 8 << 10;

/// How well the memory is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// Only this process can read it.
    Secret,
    /// It stays in memory.
    Locked,
    /// It may be swapped.
    Swappable,
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "its secret is in memory that no other process can read",
            Self::Locked => "its secret is in memory that is never swapped",
            Self::Swappable => "its secret may be swapped (RLIMIT_MEMLOCK allows no locked memory)",
        })
    }
}

/// The only copy of a value.
pub(super) struct Locked<T> {
    at: NonNull<T>,
    bytes: usize,
    guarded: Guarded,
}

#[expect(unsafe_code, reason = "it owns its value as a box does")]
// SAFETY: it owns its value, which goes with it.
unsafe impl<T: Send> Send for Locked<T> {}
#[expect(unsafe_code, reason = "it owns its value as a box does")]
// SAFETY: through a shared reference the value can only be shared.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// Moves what `make` returns into guarded memory, and wipes the stack it was made on.
    pub(super) fn of<E>(make: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let made = Self::made(make);
        wipe_stack(FRAMES);
        made
    }

    #[inline(never)]
    fn made<E>(make: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let value = make()?;
        let bytes = size_of::<T>().next_multiple_of(page());
        let (at, guarded) = secret_pages(bytes)
            .map(|at| (at, Guarded::Secret))
            .or_else(|_| plain_pages(bytes))
            .unwrap_or_else(|_| handle_alloc_error(Layout::new::<T>()));
        let at = at.cast::<T>();
        #[expect(unsafe_code, reason = "the memory comes from the system")]
        // SAFETY: the pages are ours, zeroed, large enough, and aligned to a page.
        unsafe {
            at.write(value);
        }
        Ok(Self { at, bytes, guarded })
    }

    pub(super) const fn guarded(&self) -> Guarded {
        self.guarded
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        #[expect(unsafe_code, reason = "the memory comes from the system")]
        // SAFETY: the value was written when this was made, and lives as long.
        unsafe {
            self.at.as_ref()
        }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "the memory comes from the system")]
        // SAFETY: nobody has a reference any more. The value is dropped once, then its pages, all ours, are
        // wiped and given back.
        unsafe {
            self.at.drop_in_place();
            std::slice::from_raw_parts_mut(self.at.as_ptr().cast::<u8>(), self.bytes).zeroize();
            libc::munmap(self.at.as_ptr().cast(), self.bytes);
        }
    }
}

/// Overwrites what lies below the caller's frame, in so many frames of [`FRAME`] bytes.
#[inline(never)]
fn wipe_stack(frames: usize) {
    let mut below = [0xff_u8; FRAME];
    below.zeroize();
    if frames > 1 {
        wipe_stack(frames - 1);
    }
    std::hint::black_box(&mut below);
}

fn page() -> usize {
    #[expect(unsafe_code, reason = "the standard library does not tell")]
    // SAFETY: it takes a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(1 << 16)
}

fn secret_pages(bytes: usize) -> Result<NonNull<u8>, Errno> {
    #[expect(unsafe_code, reason = "libc has no name for this call")]
    // SAFETY: it takes a number.
    let file = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let file = i32::try_from(Errno::result(file)?).map_err(|_| Errno::EBADF)?;
    #[expect(unsafe_code, reason = "the descriptor comes from the system")]
    // SAFETY: nobody else has the descriptor yet.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    nix::unistd::ftruncate(&file, i64::try_from(bytes).map_err(|_| Errno::EFBIG)?)?;
    map(bytes, libc::MAP_SHARED, file.as_raw_fd())
}

fn plain_pages(bytes: usize) -> Result<(NonNull<u8>, Guarded), Errno> {
    let at = map(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    #[expect(unsafe_code, reason = "the standard library does not lock memory")]
    // SAFETY: the pages are ours.
    let locked = unsafe { libc::mlock(at.as_ptr().cast(), bytes) };
    let guarded = if locked == 0 {
        Guarded::Locked
    } else {
        Guarded::Swappable
    };
    Ok((at, guarded))
}

fn map(bytes: usize, flags: libc::c_int, file: libc::c_int) -> Result<NonNull<u8>, Errno> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    #[expect(unsafe_code, reason = "the standard library maps no memory")]
    // SAFETY: the system chooses the place.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, file, 0) };
    let at = NonNull::new(at).filter(|at| at.as_ptr() != libc::MAP_FAILED);
    let at = at.ok_or_else(Errno::last)?;
    for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
        #[expect(unsafe_code, reason = "the standard library gives no advice")]
        // SAFETY: the pages are ours. A kernel that does not know the advice does without.
        unsafe {
            libc::madvise(at.as_ptr(), bytes, advice);
        }
    }
    Ok(at.cast())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::FileExt as _,
    };

    use zeroize::Zeroizing;

    use super::*;
    use crate::wallet::keyfile;

    /// How often a needle, given masked, is in memory that this process can write and others might read.
    fn times_in_memory(masked: &[u8; 32]) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mut times = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            // The tables of a sanitizer, as large as all addresses.
            if to - from > 1 << 40 {
                continue;
            }
            for at in (from..to).step_by(1 << 16) {
                // Nothing of what is read stays, or it would be found next.
                let mut chunk = Zeroizing::new(vec![0; (1 << 16) + 31]);
                let here = chunk.as_ptr() as u64;
                let length = chunk.len().min((to - at) as usize);
                if memory.read_exact_at(&mut chunk[..length], at).is_err() {
                    continue;
                }
                let is = |bytes: &[u8]| {
                    bytes
                        .iter()
                        .zip(masked)
                        .all(|(byte, mask)| byte ^ 0x5a == *mask)
                };
                let found = chunk[..length]
                    .windows(32)
                    .enumerate()
                    .filter(|(index, bytes)| {
                        let address = at + *index as u64;
                        is(bytes) && !(here..here + chunk.len() as u64).contains(&address)
                    });
                times += found.count();
            }
        }
        times
    }

    #[test]
    fn a_key_is_in_memory_at_most_once() {
        // A seed that nothing here holds in the clear but while it becomes a key.
        let masked: [u8; 32] = std::array::from_fn(|i| (i as u8).wrapping_mul(73).wrapping_add(11));
        let unmasked = || Zeroizing::new(masked.map(|byte| byte ^ 0x5a));
        let held = Locked::of(|| {
            let file = Zeroizing::new(format!(
                "{{\"secretSeed\": \"0x{}\"}}",
                hex::encode(*unmasked())
            ));
            keyfile::secret(file.as_bytes())
        });
        let held = held.unwrap();
        assert_eq!(times_in_memory(&masked), 0, "the seed");
        // Of an ed25519 key, the seed is the secret.
        let ed25519 = Locked::of(|| Ok::<_, ()>(Zeroizing::new(*unmasked()))).unwrap();
        let expected = usize::from(ed25519.guarded() != Guarded::Secret);
        assert_eq!(times_in_memory(&masked), expected, "{}", ed25519.guarded());
        drop((held, ed25519));
        assert_eq!(times_in_memory(&masked), 0, "after it was dropped");
    }
}
