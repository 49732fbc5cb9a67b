//! `--samples SPEC`: which source, and with what weight.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};
use url::Url;

/// How the rows of a W&B run hold conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowLayout {
    /// `prompts.N` and `responses.N`, many conversations a row.
    #[default]
    Cortex,
    /// `challenge` and `reference`, one conversation a row.
    Sn1,
}

/// Which W&B runs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunFilter {
    /// Runs that are running now.
    #[default]
    Running,
    /// Runs that ended without an error.
    Finished,
    /// The newest, whatever their state.
    Newest,
}

/// A place that samples come from, as `--samples` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `jsonl:PATH`: a file, the files of a folder, or a pattern.
    Jsonl(String),
    /// `hf:DATASET[@REVISION][/CONFIG][:SPLIT]`: a dataset on the hub.
    Hub {
        /// `namespace/name`.
        dataset: String,
        /// Commit, branch or tag; `main` if none.
        revision: Option<String>,
        /// Folder or configuration name its files must lie under.
        config: Option<String>,
        /// Split name its files must carry.
        split: Option<String>,
    },
    /// `http(s)://URL[,URL..]`: JSONL or a JSON array; further addresses are mirrors.
    Http(Vec<Url>),
    /// `wandb:ENTITY/PROJECT[?layout=sn1&runs=finished&signed=true]`: history of W&B runs.
    Wandb {
        /// User or team that owns the project.
        entity: String,
        /// Name of the project at W&B.
        project: String,
        /// Which keys of a row hold conversations.
        layout: RowLayout,
        /// State that a run must be in.
        runs: RunFilter,
        /// Whether a run's id must be signed by the hotkey it names.
        signed: bool,
    },
}

/// A source and its share of the samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// The text it was read from, without what may be secret: records and status tell it.
    pub spec: String,
    /// The place that the text names.
    pub source: Source,
    /// Its weight relative to the others, above 0.
    pub weight: f64,
    /// Tells the whole text from others and does not show it.
    pub(crate) key: String,
}

/// Why a `--samples` value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{spec:?}: {problem}")]
pub struct SourceError {
    /// The text that was given.
    pub spec: String,
    /// What is wrong with it.
    pub problem: String,
}

const FORMS: &str = "expected jsonl:PATH, hf:NAMESPACE/DATASET[@REVISION][/CONFIG][:SPLIT], \
                     http(s)://URL or wandb:ENTITY/PROJECT, each with *WEIGHT if wanted";

impl FromStr for Weighted {
    type Err = SourceError;

    fn from_str(spec: &str) -> Result<Self, SourceError> {
        let refuse = |problem: String| SourceError {
            spec: shown(spec),
            problem,
        };
        let (body, weight) = match spec.rsplit_once('*') {
            // A pattern such as `jsonl:data/*.jsonl` has a star of its own.
            Some((body, number)) if number.parse::<f64>().is_ok() => {
                (body, number.parse().unwrap_or(1.0))
            }
            _ => (spec, 1.0),
        };
        if !(weight > 0.0 && f64::is_finite(weight)) {
            return Err(refuse("the weight after * must be above 0".into()));
        }
        let source = if let Some(path) = body.strip_prefix("jsonl:").filter(|p| !p.is_empty()) {
            Source::Jsonl(path.to_owned())
        } else if let Some(dataset) = body.strip_prefix("hf:") {
            hub(dataset).ok_or_else(|| refuse(FORMS.into()))?
        } else if let Some(project) = body.strip_prefix("wandb:") {
            wandb(project).map_err(refuse)?
        } else if body.starts_with("http://") || body.starts_with("https://") {
            let urls = body
                .split(',')
                .map(|url| Url::parse(url).map_err(|error| refuse(error.to_string())))
                .collect::<Result<_, _>>()?;
            Source::Http(urls)
        } else {
            return Err(refuse(FORMS.into()));
        };
        Ok(Self {
            spec: shown(spec),
            source,
            weight,
            key: hex::encode(&Sha256::digest(spec.as_bytes())[..8]),
        })
    }
}

/// Hides user, password and query of each address in a specification. What does not parse is hidden
/// the same way: it was meant to be an address.
fn shown(spec: &str) -> String {
    const HIDDEN: &str = "***";
    if !spec.starts_with("http://") && !spec.starts_with("https://") {
        return spec.to_owned();
    }
    let address = |address: &str| {
        let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
        let (place, query) = match rest.find(['?', '#']) {
            Some(at) => (&rest[..at], format!("?{HIDDEN}")),
            None => (rest, String::new()),
        };
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        let authority = match authority.rsplit_once('@') {
            Some((_, host)) => format!("{HIDDEN}@{host}"),
            None => authority.to_owned(),
        };
        format!("{scheme}://{authority}{path}{query}")
    };
    let addresses: Vec<String> = spec.split(',').map(address).collect();
    addresses.join(",")
}

fn hub(text: &str) -> Option<Source> {
    let (text, split) = match text.rsplit_once(':') {
        Some((text, split)) => (text, Some(split.to_owned())),
        None => (text, None),
    };
    let mut parts = text.splitn(3, '/');
    let (namespace, name) = (parts.next()?, parts.next()?);
    let mut config = parts.next().map(ToOwned::to_owned);
    let (name, revision) = match name.split_once('@') {
        Some((name, revision)) => (name, Some(revision.to_owned())),
        None => (name, None),
    };
    config = config.filter(|config| !config.is_empty());
    let valid = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    (valid(namespace) && valid(name)).then(|| Source::Hub {
        dataset: format!("{namespace}/{name}"),
        revision,
        config,
        split,
    })
}

fn wandb(text: &str) -> Result<Source, String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let (entity, project) = path
        .split_once('/')
        .filter(|(entity, project)| !entity.is_empty() && !project.is_empty())
        .ok_or(FORMS)?;
    let (mut layout, mut runs, mut signed) = (RowLayout::default(), RunFilter::default(), false);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option {
            "layout=cortex" => layout = RowLayout::Cortex,
            "layout=sn1" => layout = RowLayout::Sn1,
            "runs=running" => runs = RunFilter::Running,
            "runs=finished" => runs = RunFilter::Finished,
            "runs=newest" => runs = RunFilter::Newest,
            "signed=true" => signed = true,
            "signed=false" => signed = false,
            other => {
                return Err(format!(
                    "{other:?} is none of layout=cortex|sn1, runs=running|finished|newest, \
                     signed=true|false"
                ));
            }
        }
    }
    Ok(Source::Wandb {
        entity: entity.to_owned(),
        project: project.to_owned(),
        layout,
        runs,
        signed,
    })
}

impl fmt::Display for Weighted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(spec: &str) -> (Source, f64) {
        let weighted: Weighted = spec.parse().unwrap();
        (weighted.source, weighted.weight)
    }

    #[test]
    fn every_kind_is_read() {
        assert_eq!(
            parse("jsonl:data/*.jsonl"),
            (Source::Jsonl("data/*.jsonl".into()), 1.0)
        );
        assert_eq!(parse("jsonl:a*0.5"), (Source::Jsonl("a".into()), 0.5));
        let hub = |revision: Option<&str>, config: Option<&str>, split: Option<&str>| Source::Hub {
            dataset: "org/set".into(),
            revision: revision.map(Into::into),
            config: config.map(Into::into),
            split: split.map(Into::into),
        };
        assert_eq!(parse("hf:org/set"), (hub(None, None, None), 1.0));
        assert_eq!(
            parse("hf:org/set@abc/en:train*2"),
            (hub(Some("abc"), Some("en"), Some("train")), 2.0)
        );
        assert_eq!(
            parse("https://a.example/x.jsonl,https://b.example/x.jsonl").0,
            Source::Http(vec![
                "https://a.example/x.jsonl".parse().unwrap(),
                "https://b.example/x.jsonl".parse().unwrap()
            ])
        );
        assert_eq!(
            parse("wandb:cortex-t/multi-modality?runs=finished&signed=true").0,
            Source::Wandb {
                entity: "cortex-t".into(),
                project: "multi-modality".into(),
                layout: RowLayout::Cortex,
                runs: RunFilter::Finished,
                signed: true,
            }
        );
    }

    #[test]
    fn what_is_told_of_an_address_holds_no_secret() {
        let spec = |text: &str| text.parse::<Weighted>().unwrap().spec;
        let whole = "https://me:SECRET@a.example/x.jsonl?key=SECRET,https://b.example/y#SECRET";
        assert_eq!(
            spec(whole),
            "https://***@a.example/x.jsonl?***,https://b.example/y?***"
        );
        assert_eq!(spec("http://a.example"), "http://a.example");
        assert_eq!(
            spec("hf:org/set@abc/en:train*2"),
            "hf:org/set@abc/en:train*2"
        );
        let error = "https://me:SECRET@a.example:x/?SECRET".parse::<Weighted>();
        assert!(!error.unwrap_err().to_string().contains("SECRET"));
        // Two addresses that differ in what is hidden are two sources.
        let key = |text: &str| text.parse::<Weighted>().unwrap().key;
        assert_ne!(
            key("https://a.example/x?part=1"),
            key("https://a.example/x?part=2")
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_forms() {
        for spec in [
            "",
            "jsonl:",
            "hf:x",
            "hf:a b/c",
            "ftp://x",
            "wandb:x",
            "jsonl:a*0",
        ] {
            assert!(spec.parse::<Weighted>().is_err(), "{spec}");
        }
        let error = "wandb:a/b?runs=all".parse::<Weighted>().unwrap_err();
        insta::assert_snapshot!(error, @r#""wandb:a/b?runs=all": "runs=all" is none of layout=cortex|sn1, runs=running|finished|newest, signed=true|false"#);
    }
}
