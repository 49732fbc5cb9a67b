//! Where published records are read from: a folder, or an address that anyone may read.

use std::{fmt, path::PathBuf, time::Duration};

use http_client::{HttpClient, HttpError, HttpOptions, HttpRequest, shown};
use shared::{Exit, Failure, cli::FullPath, file};
use url::Url;

/// What every file may take, and how many bytes more come in a second at least.
const LEAST_TIME: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 128 << 10;

/// Where published records are.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Folder(PathBuf),
    Address(Url, HttpClient),
}

/// Why a published file could not be had.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not there, or not as it should be: whoever published it is to answer for it.
    Theirs(String),
    /// The place does not answer, or this machine is at fault: nothing follows.
    Ours(String),
}

impl Source {
    /// Takes a folder, or an address, with the manifest's name at its end or without.
    pub(super) fn of(text: &str) -> Result<Self, Failure> {
        let refuse = |why: &dyn fmt::Display| {
            Failure::new(
                Exit::Usage,
                format_args!("{} is no place of records", hidden(text)),
            )
            .because(why)
            .hint("a folder, or the https:// address that its files are published under")
        };
        let text = text
            .strip_suffix(report::publication::MANIFEST)
            .unwrap_or(text);
        if !text.contains("://") {
            let path = FullPath::of(std::path::Path::new(text)).map_err(|error| refuse(&error))?;
            return Ok(Self::Folder(path.into()));
        }
        let mut url: Url = text
            .parse()
            .map_err(|error: url::ParseError| refuse(&error))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse(&"only http and https are read"));
        }
        if url.query().is_some() {
            return Err(refuse(
                &"the address has a query, which its files would lack",
            ));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let client = HttpClient::new(HttpOptions::default());
        let client = client.map_err(|error| Failure::of(Exit::Machine, &error))?;
        Ok(Self::Address(url, client))
    }

    /// Reads a file of at most so many bytes.
    pub(super) async fn read(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, Unread> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let read =
                    tokio::task::spawn_blocking(move || file::read_limited(&path, max_bytes));
                let read = read
                    .await
                    .map_err(|error| Unread::Ours(error.to_string()))?;
                match read {
                    Ok(Some(bytes)) => Ok(bytes),
                    Ok(None) => Err(Unread::Theirs(format!("{name} is missing"))),
                    Err(error) if is_too_large(&error) => {
                        Err(Unread::Theirs(shared::causes::one_line(&error)))
                    }
                    Err(error) => Err(Unread::Ours(shared::causes::one_line(&error))),
                }
            }
            Self::Address(url, client) => {
                let url = url
                    .join(name)
                    .map_err(|error| Unread::Ours(error.to_string()))?;
                let time = LEAST_TIME + Duration::from_secs(max_bytes / SLOWEST);
                let request = HttpRequest::get(url, max_bytes, time);
                request.send(client).await.map_err(|error| match error {
                    error if error.is_unavailable() => {
                        Unread::Theirs(format!("{name} is missing: {error}"))
                    }
                    HttpError::TooLarge { .. } => Unread::Theirs(error.to_string()),
                    error => Unread::Ours(error.to_string()),
                })
            }
        }
    }
}

fn is_too_large(error: &dyn std::error::Error) -> bool {
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::FileTooLarge)
}

/// A text of the command line, without what may be secret in an address.
fn hidden(text: &str) -> String {
    match text.parse::<Url>() {
        Ok(url) if url.has_host() => shown(&url),
        _ => text.to_owned(),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Address(url, _) => f.write_str(&shown(url)),
        }
    }
}
