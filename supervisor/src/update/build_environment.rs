//! What the code of a commit finds in its environment, while it is built and tried out.
//!
//! A build script runs as the operator's user, and whoever is allowed to commit should not need to be
//! trusted with the keys of this machine. A build gets the variables that compilers, cargo and what they
//! call are known to read, and those of `--build-env`; never one whose name says that it is a secret,
//! unless it is named there. A program that is tried out needs its own configuration, of which nobody
//! here knows the names, so that it gets everything but secrets.

use std::{env, ffi::OsString, path::PathBuf};

use crate::config::BuildConfig;

/// Variables of builds. A name that ends with `*` is a beginning.
const BUILDS: [&str; 62] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TERM",
    "SOURCE_DATE_EPOCH",
    "NUM_JOBS",
    "CARGO*",
    "RUST*",
    "SCCACHE_*",
    "CCACHE_*",
    "CC",
    "CC_*",
    "CXX",
    "CXX_*",
    "CPP",
    "CFLAGS*",
    "CXXFLAGS*",
    "CPPFLAGS*",
    "LDFLAGS*",
    "AR",
    "AR_*",
    "ARFLAGS*",
    "AS",
    "LD",
    "NM",
    "RANLIB*",
    "STRIP",
    "HOST_*",
    "TARGET_*",
    "CMAKE*",
    "MAKE*",
    "NINJA*",
    "PKG_CONFIG*",
    "LIBCLANG_PATH",
    "CLANG_PATH",
    "LLVM*",
    "BINDGEN_*",
    "OPENSSL_*",
    "OPENBLAS_*",
    "MKL*",
    "ZSTD_*",
    "PROTOC*",
    "NVCC*",
    "CUDA*",
    "NCCL_*",
    "LD_LIBRARY_PATH",
    "LIBRARY_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "SSL_CERT_*",
    "NIX_*",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// Proxies often bear a password, and are for fetching.
const PROXIES: &str = "_PROXY";

/// Parts of names of variables that hold secrets, or lead to them.
const SECRETS: [&str; 11] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "_KEY",
    "APIKEY",
    "AUTH",
    "MNEMONIC",
    "COOKIE",
];

/// Our own options, which may be called anything; a supervisor that is tried out reads them.
const OWN: &str = "SUPERVISOR_";

type Variable = (OsString, OsString);

/// What a build does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuildStage {
    /// Sources are fetched; none of their code is meant to run.
    Fetch,
    Compile,
}

/// Returns the variables of a build.
pub(super) fn of_build(config: &BuildConfig, stage: BuildStage) -> Vec<Variable> {
    let wanted = |name: &str| {
        let proxy = name.ends_with(PROXIES);
        is_of_builds(name) && (stage == BuildStage::Fetch || !proxy || config.keeps_network())
    };
    let mut variables = Vec::new();
    for (name, value) in env::vars_os() {
        let text = name.to_string_lossy().to_uppercase();
        let asked = config.environment.iter().any(|asked| name == **asked);
        if asked || (wanted(&text) && !is_secret(&text)) {
            variables.push((name, value));
        }
    }
    variables
}

/// Returns files that variables of `--build-env` name, such as the socket of an SSH agent.
pub(super) fn named(config: &BuildConfig) -> Vec<PathBuf> {
    let asked = |name: &OsString| config.environment.iter().any(|asked| name == &**asked);
    let values = env::vars_os().filter(|(name, _)| asked(name));
    values
        .map(|(_, value)| PathBuf::from(value))
        .filter(|path| path.is_absolute() && path.exists() && !path.is_dir())
        .collect()
}

/// Returns the variables of a program that is tried out.
pub(super) fn without_secrets(config: &BuildConfig) -> Vec<Variable> {
    let wanted = |name: &OsString| {
        let text = name.to_string_lossy().to_uppercase();
        let asked = config.environment.iter().any(|asked| name == &**asked);
        // It must not tell our service manager that it is ready.
        text != "NOTIFY_SOCKET" && (asked || text.starts_with(OWN) || !is_secret(&text))
    };
    env::vars_os().filter(|(name, _)| wanted(name)).collect()
}

/// Returns the paths that variables of builds name: where toolchains are.
pub(super) fn toolchains(variables: &[Variable]) -> Vec<PathBuf> {
    variables
        .iter()
        // Both hold more than toolchains.
        .filter(|(name, _)| name != "HOME" && name != "CARGO_HOME")
        .flat_map(|(_, value)| env::split_paths(value).collect::<Vec<_>>())
        .filter(|path| path.is_absolute() && path.exists())
        .collect()
}

/// Returns the paths that other variables name, the operator's own such as a folder of models, and
/// whether each is said to be a secret.
pub(super) fn others() -> Vec<(PathBuf, bool)> {
    let named = env::vars_os().filter_map(|(name, value)| {
        let name = name.to_string_lossy().to_uppercase();
        let (secret, path) = (is_secret(&name), PathBuf::from(value));
        let other = secret || !is_of_builds(&name);
        (other && path.is_absolute() && path.exists()).then_some((path, secret))
    });
    named.collect()
}

fn is_of_builds(name: &str) -> bool {
    BUILDS.iter().any(|known| match known.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == *known,
    })
}

fn is_secret(name: &str) -> bool {
    SECRETS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_get_theirs_and_nobody_gets_secrets() {
        for name in [
            "PATH",
            "CARGO_HOME",
            "RUSTFLAGS",
            "CC_X86_64_UNKNOWN_LINUX_GNU",
            "NVCC_PREPEND_FLAGS",
            "CUDA_HOME",
            "LC_ALL",
        ] {
            assert!(is_of_builds(name) && !is_secret(name), "{name}");
        }
        for name in [
            "HF_TOKEN",
            "WANDB_API_KEY",
            "CARGO_REGISTRIES_MINE_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "SSH_AUTH_SOCK",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "PGPASSWORD",
            "CARGO_REGISTRY_TOKEN",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "BT_WALLET_PATH",
            "HF_HOME",
            "VALIDATOR_STATE_DIR",
            "CCTV",
            "SSH_AGENT_PID",
        ] {
            assert!(!is_of_builds(name), "{name}");
        }
    }
}
