//! A supervisor at rest is small.

use std::{fs, ptr};

use nix::libc;

/// Lets go of code that was run: what is needed again is mapped again, from the page cache. Most of it
/// only parses a command line or starts a step, and between two steps are hours.
#[expect(unsafe_code, reason = "there is no safe door to memory advice")]
pub(crate) fn let_go_of_code() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(code) {
        // SAFETY: the range is one of ours, of a file, and never written to, so that the kernel only
        // forgets what it can read again. Nobody unmaps code: nothing here loads or unloads libraries.
        // That it fails changes nothing.
        unsafe {
            libc::madvise(
                ptr::without_provenance_mut(start),
                length,
                libc::MADV_DONTNEED,
            );
        }
    }
}

/// Returns start and length in bytes of a mapping that is the code of a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (access, inode) = (words.next()?, words.nth(2)?);
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    let start = number(start)?;
    (access == "r-xp" && inode != "0").then_some((start, number(end)?.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go() {
        let of = |access: &str, inode: &str| {
            code(&format!(
                "1000-3000 {access} 00001000 fe:00 {inode}      /a b"
            ))
        };
        assert_eq!(of("r-xp", "7"), Some((0x1000, 0x2000)));
        // Data, constants that the loader has written to, and code of the kernel.
        for other in [of("rw-p", "7"), of("r--p", "7"), of("r-xp", "0")] {
            assert_eq!(other, None);
        }
        assert_eq!(code("what else"), None);
        let_go_of_code();
    }
}
