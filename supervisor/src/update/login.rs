//! How we prove to a private remote who we are: SSH agent, key files, git's credential helpers.

use std::path::PathBuf;

use git2::{Cred, CredentialType, Error, RemoteCallbacks, Repository};

/// Key files tried where none is named, in this order; those with a passphrase need the agent.
pub const KEY_FILES: [&str; 3] = [".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"];

/// One way to log in. Each is tried once: libgit2 asks again for ever when told the same.
enum Way {
    Agent,
    Key(PathBuf),
    Helper,
}

/// Returns callbacks that answer a remote's questions. The helpers are those of the checkout's
/// configuration; host keys and certificates are checked by libgit2 itself.
pub fn callbacks(checkout: &Repository, ssh_keys: Vec<PathBuf>) -> RemoteCallbacks<'static> {
    let config = checkout.config().or_else(|_| git2::Config::open_default());
    let files: Vec<PathBuf> = ssh_keys.into_iter().filter(|key| key.is_file()).collect();
    let tried = tried(&files);
    let mut ways = [Way::Agent]
        .into_iter()
        .chain(files.into_iter().map(Way::Key))
        .chain([Way::Helper])
        .collect::<Vec<_>>()
        .into_iter();
    let mut callbacks = RemoteCallbacks::new();
    callbacks.credentials(move |url, name, allowed| {
        let user = name.unwrap_or("git");
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(user);
        }
        for way in ways.by_ref() {
            let ssh = allowed.contains(CredentialType::SSH_KEY);
            let offer = match way {
                Way::Agent if ssh => Cred::ssh_key_from_agent(user),
                Way::Key(file) if ssh => Cred::ssh_key(user, None, &file, None),
                Way::Helper if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                    match &config {
                        Ok(config) => Cred::credential_helper(config, url, name),
                        Err(error) => Err(Error::from_str(error.message())),
                    }
                }
                _ => continue,
            };
            if let Ok(offer) = offer {
                return Ok(offer);
            }
        }
        Err(Error::new(
            git2::ErrorCode::Auth,
            git2::ErrorClass::Net,
            format!("no login was accepted (tried {tried})"),
        ))
    });
    callbacks
}

fn tried(files: &[PathBuf]) -> String {
    let files = files.iter().map(|file| file.display().to_string());
    let ways: Vec<String> = ["the SSH agent".to_owned()]
        .into_iter()
        .chain(files)
        .chain(["git's credential helpers".to_owned()])
        .collect();
    ways.join(", ")
}
