//! Where records are published, and with which key.

use std::path::Path;

use clap::Args;
use shared::{Exit, Failure, cli::FullPath};
use url::Url;

use report::publication::{Bucket, BucketKey, PublishPlace};

/// Where records are published: a bucket is reached by the variables of Amazon's own tools.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Watching")]
pub(crate) struct PublishFlags {
    /// Publish records and samples after each step, for `validator audit`: a folder, s3://BUCKET/FOLDER, or
    /// https://HOST/BUCKET/FOLDER of what speaks like S3
    #[arg(long, value_name = "DIR|URL")]
    publish: Option<String>,
    /// Id of the key that may write to the bucket
    #[arg(long, value_name = "ID", env = "AWS_ACCESS_KEY_ID", hide = true)]
    aws_access_key_id: Option<String>,
    /// The key
    #[arg(
        long,
        value_name = "KEY",
        env = "AWS_SECRET_ACCESS_KEY",
        hide_env_values = true,
        hide = true
    )]
    aws_secret_access_key: Option<SecretText>,
    /// What belongs to a key that expires
    #[arg(
        long,
        value_name = "TOKEN",
        env = "AWS_SESSION_TOKEN",
        hide_env_values = true,
        hide = true
    )]
    aws_session_token: Option<SecretText>,
    /// Region of the bucket
    #[arg(long, value_name = "NAME", env = "AWS_REGION", hide = true)]
    aws_region: Option<String>,
    /// The same by another name
    #[arg(long, value_name = "NAME", env = "AWS_DEFAULT_REGION", hide = true)]
    aws_default_region: Option<String>,
    /// Address of what speaks like S3
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_S3", hide = true)]
    aws_endpoint_url_s3: Option<String>,
    /// Address of what speaks like Amazon's services
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL", hide = true)]
    aws_endpoint_url: Option<String>,
}

/// A secret that is not shown.
#[derive(Clone)]
struct SecretText(String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText")
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A bucket as it is named on the command line.
struct Named {
    endpoint: Url,
    by_host: bool,
    bucket: String,
    folder: String,
}

impl PublishFlags {
    /// Returns the place, if there is to be one.
    pub(crate) fn place(&self) -> Result<Option<PublishPlace>, Failure> {
        let Some(text) = &self.publish else {
            return Ok(None);
        };
        let refuse = |why: &dyn std::fmt::Display| {
            // An address may hold a password.
            let kind = if text.contains("://") {
                "the address"
            } else {
                "the folder"
            };
            Failure::new(Exit::Usage, format_args!("--publish: {kind} can't be used")).because(why)
        };
        let Some(named) = self.named(text).map_err(|why| refuse(&why).hint(FORMS))? else {
            let folder = FullPath::of(Path::new(text)).map_err(|error| refuse(&error))?;
            return Ok(Some(PublishPlace::Folder(folder.into())));
        };
        let set = |text: &Option<SecretText>| {
            let text = text.as_ref().map(|text| text.0.trim().to_owned());
            text.filter(|text| !text.is_empty())
        };
        let id = self.aws_access_key_id.as_deref().map(str::trim);
        let id = id.filter(|id| !id.is_empty());
        let (Some(id), Some(secret)) = (id, set(&self.aws_secret_access_key)) else {
            return Err(
                Failure::new(Exit::Config, "--publish: there is no key for the bucket")
                    .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            );
        };
        let key = match set(&self.aws_session_token) {
            None => BucketKey::new(id, secret),
            Some(token) => BucketKey::new_with_token(id, secret, token),
        };
        let bucket = Bucket::new(
            named.endpoint,
            named.by_host,
            &named.bucket,
            &named.folder,
            &self.region(),
            key,
        );
        let bucket = bucket.map_err(|error| refuse(&error).hint(FORMS))?;
        Ok(Some(PublishPlace::Bucket(Box::new(bucket))))
    }

    fn region(&self) -> String {
        let given = [&self.aws_region, &self.aws_default_region];
        let given = given.into_iter().flatten().find(|name| !name.is_empty());
        given.cloned().unwrap_or_else(|| "us-east-1".to_owned())
    }

    /// Returns the bucket that a text names; `None` if it is a folder's path.
    fn named(&self, text: &str) -> Result<Option<Named>, String> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
            let given = [&self.aws_endpoint_url_s3, &self.aws_endpoint_url];
            let given = given.into_iter().flatten().find(|url| !url.is_empty());
            let endpoint = match given {
                Some(url) => url.clone(),
                None => format!("https://s3.{}.amazonaws.com", self.region()),
            };
            let endpoint = endpoint
                .parse()
                .map_err(|error| format!("AWS_ENDPOINT_URL is not an address: {error}"))?;
            return Ok(Some(Named {
                endpoint,
                // Names with a dot are no names of hosts that a certificate covers.
                by_host: given.is_none() && !bucket.contains('.'),
                bucket: bucket.to_owned(),
                folder: folder.to_owned(),
            }));
        }
        if !text.contains("://") {
            return Ok(None);
        }
        let url: Url = text
            .parse()
            .map_err(|error| format!("not an address: {error}"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(format!("{}:// is none of s3, https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err("keys are read from the environment, never from the address".to_owned());
        }
        let path = url.path().trim_start_matches('/').to_owned();
        let (bucket, folder) = path.split_once('/').unwrap_or((&path, ""));
        let mut endpoint = url.clone();
        endpoint.set_path("/");
        endpoint.set_fragment(None);
        Ok(Some(Named {
            endpoint,
            by_host: false,
            bucket: bucket.to_owned(),
            folder: folder.to_owned(),
        }))
    }
}

const FORMS: &str = "s3://BUCKET/FOLDER, https://HOST/BUCKET/FOLDER, or a folder on this machine";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        publish: PublishFlags,
    }

    fn place(arguments: &[&str]) -> Result<Option<PublishPlace>, String> {
        let program = Program::parse_from([&["test"], arguments].concat());
        let shown = format!("{program:?}");
        assert!(!shown.contains("unseen"), "{shown}");
        program
            .publish
            .place()
            .map_err(|failure| failure.to_string())
    }

    const KEY: [&str; 4] = [
        "--aws-access-key-id",
        "AKIA",
        "--aws-secret-access-key",
        "unseen",
    ];

    #[test]
    fn a_place_is_a_folder_or_a_bucket() {
        let shown = |arguments: &[&str]| {
            let place = place(&[&KEY[..], arguments].concat()).unwrap().unwrap();
            assert!(!format!("{place:?}").contains("unseen"));
            place.to_string()
        };
        assert!(place(&KEY).unwrap().is_none());
        assert_eq!(shown(&["--publish", "/srv/records"]), "/srv/records");
        assert_eq!(
            shown(&["--publish", "s3://mine/vali", "--aws-region", "eu-west-1"]),
            "https://mine.s3.eu-west-1.amazonaws.com/vali/"
        );
        assert_eq!(
            shown(&[
                "--publish",
                "s3://mine.example",
                "--aws-region",
                "",
                "--aws-default-region",
                "auto"
            ]),
            "https://s3.auto.amazonaws.com/mine.example/"
        );
        let minio = ["--aws-endpoint-url", "http://127.0.0.1:9000"];
        assert_eq!(
            shown(&[&minio[..], &["--publish", "s3://mine/vali"]].concat()),
            "http://127.0.0.1:9000/mine/vali/"
        );
        assert_eq!(
            shown(&["--publish", "https://minio.example:9000/mine/a/b/"]),
            "https://minio.example:9000/mine/a/b/"
        );
    }

    #[test]
    fn what_names_no_place_or_gives_a_key_away_is_refused() {
        for (text, why) in [
            ("https://user:hidden@host.example/b", "from the environment"),
            (
                "https://host.example/b?X-Amz-Signature=hidden",
                "from the environment",
            ),
            ("http://host.example/b", "not encrypted"),
            ("https://host.example", "name of a bucket"),
            ("ftp://host.example/b", "none of s3, https"),
            ("s3://", "name of a bucket"),
        ] {
            let error = place(&[&KEY[..], &["--publish", text]].concat());
            let error = error.unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
        let error = place(&["--publish", "s3://b", "--aws-secret-access-key", ""]).unwrap_err();
        assert!(error.contains("no key"), "{error}");
    }
}
