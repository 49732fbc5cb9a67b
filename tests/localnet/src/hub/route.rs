//! The hub's URLs, taken apart by hand: revisions may hold an encoded slash, ids one or two parts.

use percent_encoding::percent_decode_str;

use super::Kind;

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/api/{kind}/{id}` or `/api/{kind}/{id}/revision/{rev}`.
    Info { repo: Repo, revision: String },
    /// `/api/{kind}/{id}/tree/{rev}[/{folder}]`.
    Tree {
        repo: Repo,
        revision: String,
        folder: String,
    },
    /// `/api/{kind}/{id}/paths-info/{rev}`.
    PathsInfo { repo: Repo, revision: String },
    /// `/api/{kind}/{id}/refs`.
    Refs { repo: Repo },
    /// `/{id}/resolve/{rev}/{path}`.
    Resolve {
        repo: Repo,
        revision: String,
        path: String,
    },
    /// `/api/resolve-cache/{kind}/{id}/{rev}/{path}`, with the path as one encoded part.
    ResolveCache {
        repo: Repo,
        revision: String,
        path: String,
    },
    /// `/api/whoami-v2`.
    WhoAmI,
    /// The dataset viewer: `/rows`, `/size`, `/splits`, `/parquet`, `/is-valid`.
    Viewer(String),
}

/// A repository as a URL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repo {
    pub(super) kind: Kind,
    pub(super) id: String,
}

impl Route {
    /// Reads the path of a URL, still percent-encoded.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path
            .strip_prefix('/')?
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().ok().map(Into::into))
            .collect::<Option<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["api", "whoami-v2"] => Some(Self::WhoAmI),
            [
                "api",
                "resolve-cache",
                kind,
                owner,
                name,
                revision,
                path @ ..,
            ] => {
                let repo = Repo {
                    kind: kind_of(kind)?,
                    id: format!("{owner}/{name}"),
                };
                Some(Self::ResolveCache {
                    repo,
                    revision: (*revision).to_owned(),
                    path: path.join("/"),
                })
            }
            ["api", kind, rest @ ..] => Self::parse_api(kind_of(kind)?, rest),
            ["datasets", rest @ ..] => Self::parse_resolve(Kind::Dataset, rest),
            [name @ ("rows" | "size" | "splits" | "parquet" | "is-valid")] => {
                Some(Self::Viewer((*name).to_owned()))
            }
            rest => Self::parse_resolve(Kind::Model, rest),
        }
    }

    fn parse_api(kind: Kind, parts: &[&str]) -> Option<Self> {
        let verbs = ["revision", "tree", "paths-info", "refs"];
        let verb = parts
            .iter()
            .position(|part| verbs.contains(part))
            .unwrap_or(parts.len());
        let repo = Repo {
            kind,
            id: id_of(&parts[..verb])?,
        };
        match &parts[verb..] {
            [] => Some(Self::Info {
                repo,
                revision: "main".into(),
            }),
            ["revision", revision] => Some(Self::Info {
                repo,
                revision: (*revision).to_owned(),
            }),
            ["tree", revision, folder @ ..] => {
                let folder: Vec<&str> = folder.iter().copied().filter(|p| !p.is_empty()).collect();
                let revision = (*revision).to_owned();
                Some(Self::Tree {
                    repo,
                    revision,
                    folder: folder.join("/"),
                })
            }
            ["paths-info", revision] => Some(Self::PathsInfo {
                repo,
                revision: (*revision).to_owned(),
            }),
            ["refs"] => Some(Self::Refs { repo }),
            _ => None,
        }
    }

    fn parse_resolve(kind: Kind, parts: &[&str]) -> Option<Self> {
        let verb = parts.iter().position(|part| *part == "resolve")?;
        let repo = Repo {
            kind,
            id: id_of(&parts[..verb])?,
        };
        let [revision, path @ ..] = &parts[verb + 1..] else {
            return None;
        };
        Some(Self::Resolve {
            repo,
            revision: (*revision).to_owned(),
            path: path.join("/"),
        })
    }
}

fn kind_of(plural: &str) -> Option<Kind> {
    match plural {
        "models" => Some(Kind::Model),
        "datasets" => Some(Kind::Dataset),
        _ => None,
    }
}

fn id_of(parts: &[&str]) -> Option<String> {
    let plausible = matches!(parts.len(), 1 | 2) && parts.iter().all(|part| !part.is_empty());
    plausible.then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_in_revisions_and_paths_find_their_place() {
        let repo = Repo {
            kind: Kind::Dataset,
            id: "a/b".into(),
        };
        assert_eq!(
            Route::parse("/api/datasets/a/b/tree/refs%2Fconvert%2Fparquet/default/train"),
            Some(Route::Tree {
                repo: repo.clone(),
                revision: "refs/convert/parquet".into(),
                folder: "default/train".into()
            })
        );
        assert_eq!(
            Route::parse("/datasets/a/b/resolve/main/x/y%20z.jsonl"),
            Some(Route::Resolve {
                repo,
                revision: "main".into(),
                path: "x/y z.jsonl".into()
            })
        );
        let gpt2 = Repo {
            kind: Kind::Model,
            id: "gpt2".into(),
        };
        assert_eq!(
            Route::parse("/api/models/gpt2"),
            Some(Route::Info {
                repo: gpt2,
                revision: "main".into()
            })
        );
        assert_eq!(Route::parse("/api/spaces/a/b"), None);
        assert_eq!(Route::parse("/"), None);
    }
}
