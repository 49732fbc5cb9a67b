//! A wall clock that a test sets while programs run: a library preloaded into them.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use shared::process;

/// The wall clock of all programs that were started with its environment, and of their children.
#[derive(Debug)]
pub struct WallClock {
    library: PathBuf,
    offset: PathBuf,
}

impl WallClock {
    /// Builds the library in a folder; the clock is right at first.
    ///
    /// # Panics
    ///
    /// Panics if `rustc` can't build it.
    pub fn new(folder: &Path) -> Self {
        let clock = Self {
            library: folder.join("wall_clock.so"),
            offset: folder.join("wall_clock.offset"),
        };
        File::create(&clock.offset).expect("the folder takes files");
        clock.set(0);
        let source = crate::workspace().join("tests/e2e/fixtures/wall_clock.rs");
        let built = process::blocking_command("rustc")
            .args(["--crate-type", "cdylib", "--edition", "2024", "-O"])
            .args(["-C", "panic=abort", "-o"])
            .args([&clock.library, &source])
            .output()
            .expect("rustc starts");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{said}");
        clock
    }

    /// Returns what a program needs in its environment.
    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [
            ("LD_PRELOAD", &self.library),
            ("WALL_CLOCK_OFFSET", &self.offset),
        ]
    }

    /// Sets the clock so many seconds after the right time, or before it; running programs see it
    /// at once.
    ///
    /// # Panics
    ///
    /// Panics if the file is gone.
    pub fn set(&self, seconds: i64) {
        let file = File::options().write(true).open(&self.offset);
        let file = file.expect("it was made with the clock");
        let written = file.write_all_at(&seconds.to_ne_bytes(), 0);
        written.expect("eight bytes fit on the disk");
    }
}
