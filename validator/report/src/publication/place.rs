//! Where steps are published: a folder, or a bucket of S3 and what speaks like it.
//!
//! Requests to a bucket are presigned (AWS Signature Version 4, in the query): the address of a request is a secret for
//! as long as it is valid, and is shown without its query like all others.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_client::{HttpClient, HttpError, HttpRequest, keeps_secrets, shown};
use rusty_s3::{Credentials, S3Action as _, UrlStyle};
use shared::{
    clock,
    file::{self, FileError},
};
use url::Url;

/// How long a signed request is valid; clocks may be apart.
const VALID: Duration = Duration::from_mins(15);

/// An answer of a bucket is empty, or an error in some XML.
const MAX_ANSWER: u64 = 64 << 10;

/// What every request may take, and how many bytes more are sent in a second at least.
const LEAST_TIME: Duration = Duration::from_secs(30);
const SLOWEST: u64 = 128 << 10;

/// Where steps are published.
#[derive(Debug, Clone)]
pub enum PublishPlace {
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

/// A bucket, the folder in it, and who may write there.
#[derive(Clone)]
pub struct Bucket {
    named: rusty_s3::Bucket,
    /// Empty, or a path that ends in a slash.
    prefix: String,
    credentials: Credentials,
    client: HttpClient,
}

/// A bucket can't be written to as it is named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    #[error(
        "{0} is not encrypted: what is signed with your key goes over https, or stays on this machine"
    )]
    Unencrypted(String),
    #[error("{0:?} is not a name of a bucket there")]
    Name(String),
    #[error("the folder {0:?} in the bucket has an empty part, `.` or `..`")]
    Folder(String),
    #[error("the HTTP client can't be made: {0}")]
    Client(String),
}

/// Something could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("a task failed: {0}")]
    Task(String),
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("bucket", &self.named.base_url().as_str())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// Names a bucket at an endpoint; nothing is sent yet. `by_host` is the style of Amazon's own addresses.
    pub fn new(
        endpoint: Url,
        by_host: bool,
        name: &str,
        folder: &str,
        region: &str,
        credentials: Credentials,
    ) -> Result<Self, BucketError> {
        if !keeps_secrets(&endpoint) {
            return Err(BucketError::Unencrypted(shown(&endpoint)));
        }
        let folder = folder.trim_matches('/');
        let odd = |part: &str| matches!(part, "" | "." | "..");
        if !folder.is_empty() && folder.split('/').any(odd) {
            return Err(BucketError::Folder(folder.to_owned()));
        }
        let wrong = || BucketError::Name(name.to_owned());
        if name.is_empty() || odd(name) {
            return Err(wrong());
        }
        let style = if by_host {
            UrlStyle::VirtualHost
        } else {
            UrlStyle::Path
        };
        let (name, region) = (name.to_owned(), region.to_owned());
        let bucket = rusty_s3::Bucket::new(endpoint, style, name, region).map_err(|_| wrong())?;
        let client = HttpClient::new(http_client::HttpOptions::default());
        Ok(Self {
            named: bucket,
            prefix: match folder {
                "" => String::new(),
                folder => format!("{folder}/"),
            },
            credentials,
            client: client.map_err(|error| BucketError::Client(error.to_string()))?,
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn put(&self, name: &str, content: Bytes) -> Result<(), HttpError> {
        let kind = if Path::new(name)
            .extension()
            .is_some_and(|kind| kind == "json")
        {
            "application/json"
        } else {
            "application/octet-stream"
        };
        let key = self.key(name);
        let signed = self.named.put_object(Some(&self.credentials), &key);
        let url = signed.sign_with_time(VALID, &clock::now());
        let time = LEAST_TIME + Duration::from_secs(content.len() as u64 / SLOWEST);
        let request = HttpRequest::put(url, kind, content, MAX_ANSWER, time);
        request.send(&self.client).await.map(drop)
    }

    async fn remove(&self, name: &str) -> Result<(), HttpError> {
        let key = self.key(name);
        let signed = self.named.delete_object(Some(&self.credentials), &key);
        let url = signed.sign_with_time(VALID, &clock::now());
        let request = HttpRequest::delete(url, MAX_ANSWER, LEAST_TIME);
        match request.send(&self.client).await {
            Err(error) if error.status().is_some_and(|status| status.as_u16() == 404) => Ok(()),
            removed => removed.map(drop),
        }
    }
}

impl PublishPlace {
    /// Writes a file, whole or not at all.
    pub async fn put(&self, name: &str, content: Bytes) -> Result<(), PublishError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                blocking(move || file::write_atomic(&path, &content)).await
            }
            Self::Bucket(bucket) => Ok(bucket.put(name, content).await?),
        }
    }

    /// Removes a file, if it is there.
    pub async fn remove(&self, name: &str) -> Result<(), PublishError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                blocking(move || file::remove_file(&path)).await
            }
            Self::Bucket(bucket) => Ok(bucket.remove(name).await?),
        }
    }

    /// Removes what a crash left half written, in the folders that are ours.
    pub async fn clean(&self) -> Result<(), PublishError> {
        let Self::Folder(folder) = self else {
            return Ok(());
        };
        let folder = folder.clone();
        blocking(move || {
            let below = ["records", "samples"].map(|below| folder.join(below));
            below
                .iter()
                .try_for_each(|folder| file::clear_temporary(folder))
        })
        .await
    }
}

impl fmt::Display for PublishPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket(bucket) => {
                f.write_str(&shown(bucket.named.base_url()))?;
                f.write_str(&bucket.prefix)
            }
        }
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), FileError> + Send + 'static,
) -> Result<(), PublishError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| PublishError::Task(error.to_string()))??)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Amazon's documentation ("Authenticating Requests: Using Query Parameters").
    fn bucket(
        endpoint: &str,
        by_host: bool,
        name: &str,
        folder: &str,
    ) -> Result<Bucket, BucketError> {
        let credentials = Credentials::new(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        );
        Bucket::new(
            endpoint.parse().unwrap(),
            by_host,
            name,
            folder,
            "us-east-1",
            credentials,
        )
    }

    #[test]
    fn requests_are_signed_as_amazon_has_it() {
        let bucket = bucket("https://s3.amazonaws.com", true, "examplebucket", "").unwrap();
        let at = "2013-05-24T00:00:00Z".parse().unwrap();
        let get = bucket
            .named
            .get_object(Some(&bucket.credentials), "test.txt");
        let url = get.sign_with_time(Duration::from_secs(86_400), &at);
        let signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(url.as_str().ends_with(signature), "{url}");
        assert_eq!(url.host_str(), Some("examplebucket.s3.amazonaws.com"));
    }

    #[test]
    fn a_bucket_is_named_so_that_no_key_and_no_file_goes_astray() {
        let there = bucket("http://127.0.0.1:9000", false, "b", "/a/b/").unwrap();
        assert_eq!(there.key("manifest.json"), "a/b/manifest.json");
        let place = PublishPlace::Bucket(Box::new(there));
        assert_eq!(place.to_string(), "http://127.0.0.1:9000/b/a/b/");
        assert!(!format!("{place:?}").contains("AKIA"), "{place:?}");
        for (endpoint, by_host, name, folder, why) in [
            ("http://minio.lan", false, "b", "", "not encrypted"),
            ("https://minio.lan", false, "", "", "name of a bucket"),
            ("https://minio.lan", false, "..", "", "name of a bucket"),
            ("https://minio.lan", true, "a/b", "", "name of a bucket"),
            ("https://minio.lan", false, "b", "a/../c", "`..`"),
            ("https://minio.lan", false, "b", "a//c", "empty part"),
        ] {
            let error = bucket(endpoint, by_host, name, folder)
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
