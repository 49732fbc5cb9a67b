//! What a binary says of itself with `--version`.

/// Expands to `"<package version> (<commit>)"`; the commit comes from `BUILD_COMMIT` at compile
/// time, as the supervisor and `scripts/release` set it. Used in each `main.rs` only, so that a
/// new commit recompiles the binaries and not the libraries.
#[macro_export]
macro_rules! version {
    () => {
        match option_env!("BUILD_COMMIT") {
            Some(commit) => $crate::version::Version {
                release: env!("CARGO_PKG_VERSION"),
                commit: Some(commit),
            },
            None => $crate::version::Version {
                release: env!("CARGO_PKG_VERSION"),
                commit: None,
            },
        }
    };
}

/// A release number and the commit it was built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The package version, such as `0.3.0`.
    pub release: &'static str,
    /// The full commit hash, if the build knew it.
    pub commit: Option<&'static str>,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ({})",
            self.release,
            self.commit.unwrap_or("development build")
        )
    }
}
