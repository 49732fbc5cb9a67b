//! Origins: the hub, and mirrors that have its content under the same paths.
//!
//! A mirror is never believed. It is asked for what a hash vouches for, and whoever asks compares the
//! hash; see `models`. Here is only who is asked next: an origin that was in trouble lately comes
//! last, so that not every file waits for it anew.

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http_client::Credentials;
use serde::Serialize;
use url::Url;

use crate::Token;

/// How long an origin that did not answer comes last: a listing of one that stalls costs 20 s.
const AWAY: Duration = Duration::from_secs(60);

/// How long one comes last that sent other bytes than the hash says.
const DISTRUST: Duration = Duration::from_hours(1);

/// Where content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The hub itself: what it says of a repository is a verdict.
    Hub,
    /// The mirror of this number, in the order of the command line.
    Mirror(usize),
}

/// What an origin did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginTrouble {
    /// It does not have this, or not as it should be; it may have others.
    Lacks,
    /// It stalls, refuses or is away.
    Away,
    /// It sent something else than the hash says.
    OtherBytes,
}

impl Origin {
    /// Returns whether nothing is believed of it.
    pub const fn is_mirror(self) -> bool {
        matches!(self, Self::Mirror(_))
    }

    const fn slot(self) -> usize {
        match self {
            Self::Hub => 0,
            Self::Mirror(number) => number + 1,
        }
    }
}

/// The address of a mirror. It holds no secret: one that does is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorUrl(Url);

/// Why a text is not the address of a mirror. The text itself may hold a secret and is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorUrlError {
    #[error("a mirror of the hub is not an address: {0}")]
    Syntax(#[from] url::ParseError),
    #[error("{0} is not the address of a mirror: http(s)://host[:port][/path] expected")]
    Form(String),
    #[error("the address of the mirror {0} holds a user, a password or a query")]
    Secret(String),
}

impl FromStr for MirrorUrl {
    type Err = MirrorUrlError;

    fn from_str(text: &str) -> Result<Self, MirrorUrlError> {
        let url = Url::parse(text.trim())?;
        let shown = http_client::shown(&url);
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(MirrorUrlError::Form(shown));
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.query().is_some() || url.fragment().is_some() {
            return Err(MirrorUrlError::Secret(shown));
        }
        Ok(Self(url))
    }
}

impl MirrorUrl {
    /// Returns the address.
    pub const fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for MirrorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mirror, and what is sent to it.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) url: Url,
    pub(crate) credentials: Option<Credentials>,
}

impl Mirror {
    /// The token of the hub goes to the hub's own scheme, host and port only; a mirror elsewhere
    /// gets the token that was given for mirrors, or none.
    pub(crate) fn new(
        MirrorUrl(url): MirrorUrl,
        hub: (&Url, Option<&Credentials>),
        token: Option<&Token>,
    ) -> Result<Self, http_client::InvalidToken> {
        let credentials = match token {
            Some(token) => Some(Credentials::bearer(token.reveal())?),
            None if url.origin() == hub.0.origin() => hub.1.cloned(),
            None => None,
        };
        if credentials.is_some() && !http_client::keeps_secrets(&url) {
            let mirror = url.as_str();
            tracing::warn!(
                mirror,
                "no token is sent to this mirror: its address has no https"
            );
        }
        Ok(Self { url, credentials })
    }
}

/// What is known of an origin, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OriginReport {
    /// Its address without what may be secret.
    pub url: String,
    /// Listings and files that it served.
    pub served: u64,
    /// How often it did not.
    pub failed: u64,
    /// Why it last did not, if it has served nothing since.
    pub problem: Option<String>,
}

#[derive(Debug)]
struct OriginSlot {
    report: OriginReport,
    last_until: Option<Instant>,
}

/// The origins of one hub, shared by all its clones.
#[derive(Debug)]
pub(crate) struct Origins {
    slots: Mutex<Vec<OriginSlot>>,
}

impl Origins {
    pub(crate) fn new<'a>(urls: impl Iterator<Item = &'a Url>) -> Self {
        let slot = |url: &Url| OriginSlot {
            report: OriginReport {
                url: http_client::shown(url),
                served: 0,
                failed: 0,
                problem: None,
            },
            last_until: None,
        };
        Self {
            slots: Mutex::new(urls.map(slot).collect()),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<OriginSlot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the origins in the order in which they are asked.
    pub(crate) fn in_order(&self) -> Vec<Origin> {
        let now = Instant::now();
        let slots = self.slots();
        let mirrors = (1..slots.len()).map(|slot| Origin::Mirror(slot - 1));
        let mut order: Vec<Origin> = std::iter::once(Origin::Hub).chain(mirrors).collect();
        let in_trouble = |origin: &Origin| {
            let until = slots[origin.slot()].last_until;
            until.is_some_and(|until| until > now)
        };
        order.sort_by_key(in_trouble);
        order
    }

    /// Who has sent other bytes is not trusted for what it sends next: it still comes last.
    pub(crate) fn note_served(&self, origin: Origin) {
        let mut slots = self.slots();
        let slot = &mut slots[origin.slot()];
        slot.report.served += 1;
        slot.report.problem = None;
    }

    pub(crate) fn note_trouble(&self, origin: Origin, trouble: OriginTrouble, problem: &str) {
        let mut slots = self.slots();
        let slot = &mut slots[origin.slot()];
        slot.report.failed += 1;
        slot.report.problem = Some(problem.to_owned());
        let pause = match trouble {
            OriginTrouble::Lacks => return,
            OriginTrouble::Away => AWAY,
            OriginTrouble::OtherBytes => DISTRUST,
        };
        let until = Instant::now().checked_add(pause);
        slot.last_until = slot.last_until.max(until);
    }

    pub(crate) fn reports(&self) -> Vec<OriginReport> {
        let slots = self.slots();
        slots.iter().map(|slot| slot.report.clone()).collect()
    }

    /// Returns the addresses of some of them.
    pub(crate) fn names(&self, origins: &BTreeSet<Origin>) -> Vec<String> {
        let slots = self.slots();
        let urls = origins
            .iter()
            .map(|origin| &slots[origin.slot()].report.url);
        urls.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn the_address_of_a_mirror_is_one_and_holds_no_secret() {
        for good in ["https://hub.example", "http://127.0.0.1:8080/huggingface/"] {
            good.parse::<MirrorUrl>().unwrap();
        }
        for bad in [
            "",
            "hub.example",
            "ftp://SECRET@hub.example",
            "https://SECRET@hub.example",
            "https://me:SECRET@hub.example",
            "https://hub.example/?key=SECRET",
            "https://SECRET@hub.example:x",
        ] {
            let error = bad.parse::<MirrorUrl>().unwrap_err().to_string();
            assert!(!error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn the_hubs_token_goes_to_the_hubs_host_only_and_a_mirrors_own_where_it_is_given() {
        let hub = url("https://hub.example");
        let credentials = Credentials::bearer("hf_hub").unwrap();
        let sent = |mirror: &str, token: Option<&str>| {
            let token = token.and_then(Token::new);
            let hub = (&hub, Some(&credentials));
            let mirror = Mirror::new(mirror.parse().unwrap(), hub, token.as_ref());
            mirror.unwrap().credentials.is_some()
        };
        assert!(sent("https://hub.example/mirror", None));
        assert!(!sent("https://hub.example:444", None));
        assert!(!sent("http://hub.example", None));
        assert!(!sent("https://mirror.example", None));
        assert!(sent("https://mirror.example", Some("own")));
    }

    #[test]
    fn who_was_in_trouble_comes_last_and_a_lie_is_remembered_longer_than_silence() {
        let urls = ["https://a", "https://b", "https://c"].map(url);
        let origins = Origins::new(urls.iter());
        let [hub, first, second] = [Origin::Hub, Origin::Mirror(0), Origin::Mirror(1)];
        assert_eq!(origins.in_order(), [hub, first, second]);
        origins.note_trouble(hub, OriginTrouble::Away, "it stalls");
        assert_eq!(origins.in_order(), [first, second, hub]);
        origins.note_trouble(first, OriginTrouble::Lacks, "404");
        assert_eq!(origins.in_order(), [first, second, hub]);
        origins.note_trouble(first, OriginTrouble::OtherBytes, "it lies");
        assert_eq!(origins.in_order(), [second, hub, first]);
        origins.note_served(first);
        assert_eq!(origins.in_order(), [second, hub, first]);
        let until = |origin: Origin| origins.slots()[origin.slot()].last_until;
        assert!(until(first) > until(hub));
        origins.note_trouble(first, OriginTrouble::Away, "it stalls");
        assert!(until(first) > until(hub), "silence shortens nothing");
        let reports = origins.reports();
        let numbers = |report: &OriginReport| (report.served, report.failed);
        let numbers: Vec<_> = reports.iter().map(numbers).collect();
        assert_eq!(numbers, [(0, 1), (1, 3), (0, 0)]);
        assert_eq!(reports[1].problem.as_deref(), Some("it stalls"));
    }
}
