//! How we prove to a private remote who we are: SSH keys, git's credential helpers; and git's proxy.

use std::path::PathBuf;

use git2::{CredentialHelper, Repository};

use crate::config::{Config, GitSource};

/// Key files named to ssh where none is given; those with a passphrase need the agent.
pub(crate) const KEY_FILES: [&str; 3] = [".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"];

/// A name and a password or token.
pub(crate) type Account = (String, String);

/// What there is to log in with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Login {
    /// The operator's checkout, whose configuration names helpers and a proxy.
    pub(crate) checkout: PathBuf,
    /// SSH keys that are tried after the agent's; those that do not exist are left out.
    pub(crate) ssh_keys: Vec<PathBuf>,
}

impl Login {
    pub(crate) fn of(config: &Config, git: &GitSource) -> Self {
        Self {
            checkout: config.repo.clone(),
            ssh_keys: git.ssh_keys.clone(),
        }
    }

    fn config(&self) -> Option<git2::Config> {
        let checkout = Repository::open(&self.checkout).and_then(|checkout| checkout.config());
        checkout.or_else(|_| git2::Config::open_default()).ok()
    }

    /// Asks git's credential helpers about an address.
    pub(crate) fn ask_helpers(&self, url: &str, user: Option<&str>) -> Option<Account> {
        let config = self.config()?;
        let mut helper = CredentialHelper::new(url);
        helper.username(user).config(&config).execute()
    }

    /// Returns git's proxy for an address, without its query; an empty one means none at all.
    pub(crate) fn proxy(&self, url: &str) -> Option<String> {
        let config = self.config()?;
        let scheme = url.find("://").map_or(0, |at| at + 3);
        let mut ends: Vec<usize> = url.match_indices('/').map(|(at, _)| at).collect();
        ends.push(url.len());
        // The most particular first, as git has it.
        let prefixes = ends.iter().rev().filter(|end| **end >= scheme);
        prefixes
            .flat_map(|end| [&url[..*end], &url[..url.len().min(*end + 1)]])
            .map(|prefix| format!("http.{prefix}.proxy"))
            .chain(["http.proxy".to_owned()])
            .find_map(|key| config.get_string(&key).ok())
    }
}
