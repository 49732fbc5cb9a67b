//! How the hub is reached.

use std::path::{Path, PathBuf};

use clap::Args;
use hub::{MirrorUrl, Token};
use shared::{Exit, Failure, cli::FullPath, file};
use url::Url;

/// The largest file of a token.
const MAX_TOKEN: u64 = 4096;

/// How the hub is reached: by the same variables as the hub's own tools (`huggingface_hub`).
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hub")]
pub(crate) struct HubFlags {
    /// Address of the hub
    #[arg(
        long,
        value_name = "URL",
        env = "HF_ENDPOINT",
        default_value = hub::DEFAULT_ENDPOINT
    )]
    pub(crate) hub_url: Url,
    /// Server with the hub's files under the same paths, asked when the hub stalls, refuses or is
    /// away; repeat it for several. Whatever it sends is compared with the hash that hub or
    /// commitment gave
    #[arg(
        long = "hub-mirror",
        value_name = "URL",
        env = "VALIDATOR_HUB_MIRROR",
        value_delimiter = ','
    )]
    mirrors: Vec<String>,
    /// Access token for the mirrors; the hub's own is never sent to another host
    #[arg(
        long = "hub-mirror-token",
        value_name = "TOKEN",
        env = "VALIDATOR_HUB_MIRROR_TOKEN",
        hide_env_values = true
    )]
    mirror_token: Option<String>,
    /// Access token for the hub
    #[arg(long, value_name = "TOKEN", env = "HF_TOKEN", hide_env_values = true)]
    hub_token: Option<String>,
    /// The older name of the same
    #[arg(
        long,
        value_name = "TOKEN",
        env = "HUGGING_FACE_HUB_TOKEN",
        hide_env_values = true,
        hide = true
    )]
    hugging_face_hub_token: Option<String>,
    /// File in which the hub's own tools keep their token
    #[arg(long, value_name = "FILE", env = "HF_TOKEN_PATH", hide = true)]
    hf_token_path: Option<String>,
    /// Folder of the hub's own tools
    #[arg(long, value_name = "DIR", env = "HF_HOME", hide = true)]
    hf_home: Option<String>,
    /// Folder in which that folder lies
    #[arg(long, value_name = "DIR", env = "XDG_CACHE_HOME", hide = true)]
    xdg_cache_home: Option<String>,
    /// Whether the hub's own tools keep off the network
    #[arg(long, value_name = "1", env = "HF_HUB_OFFLINE", hide = true)]
    hf_hub_offline: Option<String>,
}

impl HubFlags {
    /// Returns the mirrors and the token that they are to have.
    pub(crate) fn mirrors(&self) -> Result<(Vec<MirrorUrl>, Option<Token>), Failure> {
        let texts = self.mirrors.iter().filter(|text| !text.trim().is_empty());
        let mirrors: Result<_, _> = texts.map(|text| text.parse()).collect();
        let mirrors = mirrors.map_err(|error| {
            Failure::of(Exit::Config, &error).hint("--hub-mirror-token names the token of mirrors")
        })?;
        Ok((mirrors, self.mirror_token.as_deref().and_then(Token::new)))
    }

    /// Refuses to go on where the hub's own tools would.
    pub(crate) fn check_online(&self) -> Result<(), Failure> {
        let offline = self.hf_hub_offline.as_deref().unwrap_or_default();
        if !is_on(offline) {
            return Ok(());
        }
        let text = format!("HF_HUB_OFFLINE is {offline}, and the hub is needed");
        Err(Failure::new(Exit::Config, text).hint("unset HF_HUB_OFFLINE, or set it to 0"))
    }

    /// Returns the token: the one given, or the one the hub's own tools have stored. An empty one is
    /// none.
    pub(crate) fn token(&self) -> Result<Option<Token>, Failure> {
        let given = [&self.hub_token, &self.hugging_face_hub_token];
        let given = given
            .into_iter()
            .flatten()
            .find_map(|text| Token::new(text));
        if given.is_some() {
            return Ok(given);
        }
        let path = self.token_path().map_err(|error| {
            Failure::new(Exit::Config, "can't tell where the hub's token lies").caused_by(&error)
        })?;
        let bytes = file::read_limited(&path, MAX_TOKEN).map_err(|error| {
            Failure::of(Exit::Config, &error).hint("--hub-token or HF_TOKEN name the token itself")
        })?;
        Ok(bytes.and_then(|bytes| Token::new(&String::from_utf8_lossy(&bytes))))
    }

    fn token_path(&self) -> std::io::Result<PathBuf> {
        let set = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
        let full = |path: &Path| FullPath::of(path).map(PathBuf::from);
        if let Some(path) = set(&self.hf_token_path) {
            return full(Path::new(&path));
        }
        let home = set(&self.hf_home).map_or_else(
            || {
                let cache = set(&self.xdg_cache_home).unwrap_or_else(|| "~/.cache".to_owned());
                Path::new(&cache).join("huggingface")
            },
            PathBuf::from,
        );
        full(&home.join("token"))
    }
}

/// What the hub's own tools take for yes.
fn is_on(text: &str) -> bool {
    matches!(
        text.to_ascii_uppercase().as_str(),
        "1" | "ON" | "YES" | "TRUE"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        hub: HubFlags,
    }

    fn token(arguments: &[&str]) -> Option<String> {
        let unset = [
            "--hf-token-path",
            "",
            "--hub-token",
            "",
            "--hugging-face-hub-token",
            "",
        ];
        let pairs = unset.chunks(2).filter(|pair| !arguments.contains(&pair[0]));
        let arguments = ["test"].iter().chain(arguments).chain(pairs.flatten());
        let flags = Program::parse_from(arguments).hub;
        let token = flags.token().unwrap();
        token.map(|token| token.reveal_for_request().to_owned())
    }

    #[test]
    fn a_token_is_found_where_the_hubs_own_tools_find_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(path("huggingface")).unwrap();
        for (name, text) in [
            ("token", "home\n"),
            ("huggingface/token", "cache"),
            ("own", "own"),
        ] {
            file::write_atomic(Path::new(&path(name)), text.as_bytes()).unwrap();
        }
        let (root, own) = (path(""), path("own"));
        let home = ["--hf-home", &root];
        let cache = ["--hf-home", "", "--xdg-cache-home", &root];
        assert_eq!(token(&home).as_deref(), Some("home"));
        assert_eq!(token(&cache).as_deref(), Some("cache"));
        assert_eq!(
            token(&[&home[..], &["--hf-token-path", &own]].concat()).as_deref(),
            Some("own")
        );
        let old = [&home[..], &["--hugging-face-hub-token", " old "]].concat();
        assert_eq!(token(&old).as_deref(), Some("old"));
        assert_eq!(
            token(&[&old[..], &["--hub-token", "new"]].concat()).as_deref(),
            Some("new")
        );
        assert_eq!(token(&["--hf-home", &path("none")]), None);
    }

    #[test]
    fn offline_is_offline() {
        for (value, online) in [
            ("1", false),
            ("true", false),
            ("0", true),
            ("", true),
            ("no", true),
        ] {
            let flags = Program::parse_from(["test", "--hf-hub-offline", value]).hub;
            assert_eq!(flags.check_online().is_ok(), online, "{value:?}");
        }
    }
}
