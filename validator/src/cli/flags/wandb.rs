//! How W&B is reached, and what goes there.

use std::path::Path;

use clap::Args;
use shared::{cli::FullPath, file};
use url::Url;

/// The largest netrc file read.
const MAX_NETRC: u64 = 1 << 20;

/// How W&B is reached.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "W&B")]
pub(crate) struct WandbFlags {
    /// Address of W&B
    #[arg(
        long,
        value_name = "URL",
        env = "WANDB_BASE_URL",
        default_value = "https://api.wandb.ai"
    )]
    pub(crate) wandb_url: Url,
    /// API key for W&B [default: the entry of ~/.netrc]
    #[arg(
        long,
        value_name = "KEY",
        env = "WANDB_API_KEY",
        hide_env_values = true
    )]
    pub(crate) wandb_key: Option<String>,
    /// The netrc file
    #[arg(
        long,
        value_name = "FILE",
        env = "NETRC",
        default_value = "~/.netrc",
        hide = true
    )]
    pub(crate) netrc: FullPath,
}

impl WandbFlags {
    /// Returns the API key: given, or from the netrc entry of the address.
    pub(crate) fn key(&self) -> Option<String> {
        let netrc = || {
            let bytes = file::read_limited(&self.netrc, MAX_NETRC).ok()??;
            let text = String::from_utf8(bytes).ok()?;
            let host = self.wandb_url.host_str()?;
            let with_port = self.wandb_url.port().map(|port| format!("{host}:{port}"));
            with_port
                .and_then(|machine| netrc_password(&text, &machine))
                .or_else(|| netrc_password(&text, host))
        };
        self.wandb_key.clone().or_else(netrc)
    }
}

/// Returns the password of a machine's entry.
fn netrc_password(text: &str, machine: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let mut ours = false;
    while let Some(word) = words.next() {
        match word {
            "machine" => ours = words.next() == Some(machine),
            "password" if ours => return words.next().map(ToOwned::to_owned),
            _ => {}
        }
    }
    None
}

/// Whether and where rows of the steps go to W&B.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "W&B")]
#[expect(
    clippy::struct_field_names,
    reason = "clap knows arguments by these names"
)]
pub(crate) struct WandbLogFlags {
    /// W&B project to log to; without one nothing is logged
    #[arg(long = "wandb_project", value_name = "NAME", env = "WANDB_PROJECT")]
    wandb_project: Option<String>,
    /// W&B entity that owns the project [default: the key's]
    #[arg(long = "wandb_entity", value_name = "NAME", env = "WANDB_ENTITY")]
    wandb_entity: Option<String>,
    /// Begin a new W&B run after this many steps
    #[arg(long = "wandb_max_steps_per_run", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    wandb_max_steps_per_run: Option<u64>,
    /// online, offline (keep rows on disk for `wandb sync`) or disabled
    #[arg(long = "wandb_mode", value_name = "MODE", env = "WANDB_MODE", default_value = "online", value_parser = ["online", "offline", "disabled"])]
    wandb_mode: String,
    /// Folder of the W&B runs on disk [default: the state's]
    #[arg(long = "wandb_dir", value_name = "DIR", env = "WANDB_DIR")]
    wandb_dir: Option<FullPath>,
    /// Log nothing to W&B
    #[arg(long = "wandb.off")]
    wandb_off: bool,
}

impl WandbLogFlags {
    /// Returns where rows go, if anywhere.
    pub(crate) fn settings(
        &self,
        access: &WandbFlags,
        state: &Path,
    ) -> Option<report::wandb::LoggerSettings> {
        let project = self.wandb_project.clone().filter(|_| !self.wandb_off)?;
        let key = match self.wandb_mode.as_str() {
            "disabled" => return None,
            "offline" => None,
            _ => access.key(),
        };
        Some(report::wandb::LoggerSettings {
            base_url: access.wandb_url.clone(),
            key,
            entity: self.wandb_entity.clone(),
            project,
            folder: self.wandb_dir.as_deref().unwrap_or(state).to_owned(),
            max_steps_per_run: self.wandb_max_steps_per_run,
            name: String::new(),
            config: Vec::new(),
            sign: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::netrc_password;

    #[test]
    fn the_key_is_found_in_netrc() {
        let text = "machine a.example login user password one\n\
                    machine api.wandb.ai\n  login user\n  password two\n";
        assert_eq!(netrc_password(text, "api.wandb.ai").as_deref(), Some("two"));
        assert_eq!(netrc_password(text, "b.example"), None);
    }
}
