//! Flags of everything that fetches or keeps models.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use shared::{Exit, Failure, file};

use super::{flags::expand_home, samples::HubFlags};
use hub::{Hub, HubOptions, Token};
use models::{
    Store,
    store::{StoreError, StoreLimits},
};

/// Folder of the Python validator's models, beside the program.
const OLD_STORE: &str = "model-store";

/// Where models lie.
#[derive(Debug, Clone, Args)]
pub struct StoreFlags {
    /// Folder of the models [default: ./model-store if it is there, else finetune-vali/models in
    /// the user's data folder]
    #[arg(long = "model_dir", value_name = "DIR", env = "VALIDATOR_MODEL_DIR")]
    pub model_dir: Option<PathBuf>,
    /// Most disk space the models may take, such as 500GB
    #[arg(long, value_name = "SIZE")]
    pub max_disk: Option<ByteSize>,
    /// Disk space to leave free
    #[arg(long, value_name = "SIZE", default_value = "10GB")]
    pub min_free: ByteSize,
    /// The user's data folder
    #[arg(
        long,
        value_name = "DIR",
        env = "XDG_DATA_HOME",
        default_value = "~/.local/share",
        hide = true
    )]
    pub data_home: PathBuf,
}

impl StoreFlags {
    /// Returns the folder of the models.
    pub fn root(&self) -> PathBuf {
        let old = PathBuf::from(OLD_STORE);
        match &self.model_dir {
            Some(dir) => expand_home(dir),
            None if old.is_dir() => old,
            None => expand_home(&self.data_home).join("finetune-vali/models"),
        }
    }

    /// Opens the store, making it if need be.
    pub fn open(&self) -> Result<Store, Failure> {
        Store::open(&self.root(), self.limits()).map_err(|error| store_failure(&error))
    }

    /// Returns how much disk the models may take.
    pub fn limits(&self) -> StoreLimits {
        StoreLimits {
            max_disk: self.max_disk.map(|size| size.0),
            min_free: self.min_free.0,
        }
    }
}

/// Turns an error of the store into what people read.
pub fn store_failure(error: &StoreError) -> Failure {
    Failure::of(Exit::Machine, error).hint("--model_dir names another folder")
}

/// How models are fetched.
#[derive(Debug, Clone, Args)]
pub struct FetchFlags {
    /// Most connections to the hub at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub connections: usize,
    /// Most bytes per second from the hub, such as 50MB
    #[arg(long, value_name = "SIZE")]
    pub bandwidth: Option<ByteSize>,
    /// Fetch over xet where the hub offers it, instead of by byte ranges
    #[arg(long)]
    pub xet: bool,
    /// Folder in which the hub's own tools keep their token
    #[arg(
        long,
        value_name = "DIR",
        env = "HF_HOME",
        default_value = "~/.cache/huggingface",
        hide = true
    )]
    pub hf_home: PathBuf,
}

const MAX_TOKEN: u64 = 4096;

impl FetchFlags {
    /// Makes the client of the hub. The token is the one given, or the one the hub's own tools
    /// have stored.
    pub fn hub(&self, flags: &HubFlags) -> Result<Hub, Failure> {
        Hub::new(self.options(flags)?).map_err(|error| Failure::of(Exit::Config, &error))
    }

    /// Returns how the hub is reached.
    pub fn options(&self, flags: &HubFlags) -> Result<HubOptions, Failure> {
        let mut options = HubOptions::new(flags.hub_url.clone());
        options.token = match &flags.hub_token {
            Some(token) => Token::new(token),
            None => self.stored_token()?,
        };
        options.http.connections = self.connections;
        options.http.bandwidth = self.bandwidth.map(|size| size.0);
        options.xet = self.xet;
        Ok(options)
    }

    fn stored_token(&self) -> Result<Option<Token>, Failure> {
        let path = expand_home(&self.hf_home).join("token");
        let bytes = file::read_limited(&path, MAX_TOKEN).map_err(|error| {
            Failure::of(Exit::Config, &error).hint("--hub-token or HF_TOKEN name the token itself")
        })?;
        Ok(bytes.and_then(|bytes| Token::new(&String::from_utf8_lossy(&bytes))))
    }
}

/// A number of bytes: `500GB` and `10GiB` are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// A text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected bytes, or a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB")]
pub struct BadByteSize;

impl FromStr for ByteSize {
    type Err = BadByteSize;

    fn from_str(text: &str) -> Result<Self, BadByteSize> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit.trim() {
            "" | "B" => 1,
            "k" | "kB" | "KB" => 1000,
            "M" | "MB" => 1000_u64.pow(2),
            "G" | "GB" => 1000_u64.pow(3),
            "T" | "TB" => 1000_u64.pow(4),
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(BadByteSize),
        };
        let number: u64 = number.parse().map_err(|_| BadByteSize)?;
        number.checked_mul(unit).map(Self).ok_or(BadByteSize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            ("3 kB", 3000),
            ("2GiB", 2 << 30),
            ("1TB", 10_u64.pow(12)),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "GB", "-1", "1.5GB", "1XB", "99999999999TB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(BadByteSize), "{text}");
        }
    }
}
