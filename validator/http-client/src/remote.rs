//! A file read by byte ranges, each answer checked against what is known of the file.
//!
//! Not every server can serve ranges: some answer with the whole file, some compress it and count
//! compressed bytes. Such a file is read from its beginning, and what was had before is passed
//! over; nothing here trusts the bytes, whoever reads them compares a hash.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderName},
};

use crate::{
    client::{Encoding, Exchange, HttpClient, Outgoing},
    credentials::Credentials,
    error::{HttpError, shown},
    headers::text,
};

/// Judges what the redirects to a file say of it; an error names the contradiction.
type Check = Arc<dyn Fn(&HeaderMap) -> Result<(), String> + Send + Sync>;

/// A file at an address, of known size.
pub struct RemoteFile {
    url: Url,
    /// The address without what may be secret.
    name: String,
    size: u64,
    credentials: Option<Credentials>,
    check: Option<Check>,
    seen: Mutex<Seen>,
}

/// What the answers said of a file so far.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Where the redirects ended: saves asking the first server again for each range.
    direct: Option<Url>,
    redirects: HeaderMap,
    etag: Option<String>,
    ranges: Ranges,
}

/// How a server deals with byte ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Ranges {
    /// As far as we know, it serves them.
    #[default]
    Served,
    /// It sent the whole file instead; another time it may not.
    Ignored,
    /// What it sent was not the range: it is not asked for one again.
    Wrong,
}

impl fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteFile")
            .field("name", &self.name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl RemoteFile {
    /// Names a file; nothing is sent yet.
    pub fn new(url: Url, size: u64) -> Self {
        Self {
            name: shown(&url),
            url,
            size,
            credentials: None,
            check: None,
            seen: Mutex::default(),
        }
    }

    /// Adds credentials, which go to the address's own origin only.
    #[must_use]
    pub fn credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Adds a judgment of what redirects say of the file.
    #[must_use]
    pub fn check(
        mut self,
        check: impl Fn(&HeaderMap) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    /// Returns the address without what may be secret, which names the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns whether a redirect to the file had this header.
    pub fn redirect_had(&self, header: &HeaderName) -> bool {
        self.seen().redirects.contains_key(header)
    }

    /// Returns whether the server answered a range with something else.
    pub fn lacks_ranges(&self) -> bool {
        self.seen().ranges != Ranges::Served
    }

    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    /// Begins the next range at the address of the file: a signed link may have expired.
    pub(crate) fn forget_redirect(&self) {
        self.update(|seen| seen.direct = None);
    }

    fn contradiction(&self, reason: impl Into<String>) -> HttpError {
        HttpError::contradiction(&self.url, reason)
    }

    fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What becomes of a whole file where a range was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    /// It is read up to the range.
    PassOver,
    /// It is an error, unless the range begins it and is short.
    Refuse,
}

/// An answer with the bytes wanted, after so many others.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) response: Response,
    pub(crate) ahead: u64,
}

impl RemoteFile {
    /// Asks for a range, and for the whole file where the server has no use for ranges.
    pub(crate) async fn open(
        &self,
        client: &HttpClient,
        range: &Range<u64>,
        whole: Whole,
    ) -> Result<Opened, HttpError> {
        if self.seen().ranges != Ranges::Wrong {
            let answer = self.ask(client, Some(range)).await?;
            let partial = answer.response.status() == StatusCode::PARTIAL_CONTENT;
            match self.judge(&answer, range) {
                Ok(ahead) if partial => return Ok(self.opened(answer, ahead)),
                Ok(ahead) => {
                    if *range != (0..self.size) {
                        self.update(|seen| seen.ranges = Ranges::Ignored);
                        if whole == Whole::Refuse {
                            return Err(self.contradiction("the server ignores byte ranges"));
                        }
                    }
                    return Ok(self.opened(answer, ahead));
                }
                Err(error) if partial => {
                    tracing::debug!(%error, "asking for the whole file instead");
                    self.update(|seen| seen.ranges = Ranges::Wrong);
                    if whole == Whole::Refuse {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        } else if whole == Whole::Refuse {
            return Err(self.contradiction("the server sends wrong byte ranges"));
        }
        let answer = self.ask(client, None).await?;
        let ahead = self.judge(&answer, range)?;
        Ok(self.opened(answer, ahead))
    }

    async fn ask(
        &self,
        client: &HttpClient,
        range: Option<&Range<u64>>,
    ) -> Result<Exchange, HttpError> {
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let direct = self.seen().direct;
        let outgoing = Outgoing {
            method: Method::GET,
            url: &self.url,
            start: direct.as_ref(),
            credentials: self.credentials.as_ref(),
            sent: None,
            encoding: Encoding::Identity(range.as_deref()),
        };
        match client.exchange(&outgoing).await {
            Err(HttpError::Status { status, .. })
                if status == StatusCode::RANGE_NOT_SATISFIABLE =>
            {
                Err(self.contradiction("the file is shorter than its listing says"))
            }
            exchanged => exchanged,
        }
    }

    /// Checks that the answer is this file, and the range if it is one; returns how many bytes come
    /// before the range.
    fn judge(&self, answer: &Exchange, range: &Range<u64>) -> Result<u64, HttpError> {
        let response = &answer.response;
        let (ahead, total) = if response.status() == StatusCode::PARTIAL_CONTENT {
            (0, Some(self.judge_content_range(response, range)?))
        } else {
            // A body that was compressed tells no length.
            (range.start, response.content_length())
        };
        if let Some(total) = total.filter(|total| *total != self.size) {
            let reason = format!("the listing says {} bytes, the server {total}", self.size);
            return Err(self.contradiction(reason));
        }
        if let Some(check) = &self.check {
            check(&answer.redirects).map_err(|reason| self.contradiction(reason))?;
        }
        let etag = text(response.headers(), &ETAG).map(|etag| plain_etag(&etag));
        match (etag, self.seen().etag) {
            (Some(now), Some(before)) if now != before => {
                return Err(self.contradiction("the file changed while it was fetched"));
            }
            (Some(now), None) => self.update(|seen| seen.etag = Some(now)),
            _ => {}
        }
        Ok(ahead)
    }

    /// Checks that the answer is the range asked for; returns the size of the whole file.
    fn judge_content_range(
        &self,
        response: &Response,
        range: &Range<u64>,
    ) -> Result<u64, HttpError> {
        let value = text(response.headers(), &CONTENT_RANGE);
        let length = response.content_length();
        match value.as_deref().and_then(parse_content_range) {
            Some((start, end, total))
                if start == range.start
                    && end <= range.end
                    && end > start
                    && length.is_none_or(|length| length == end - start) =>
            {
                Ok(total)
            }
            _ => {
                let (start, end) = (range.start, range.end - 1);
                let value = value.unwrap_or_else(|| "nothing".to_owned());
                let value: String = value.chars().take(80).collect();
                Err(self.contradiction(format!("asked for bytes {start}-{end}, got {value:?}")))
            }
        }
    }

    fn opened(&self, answer: Exchange, ahead: u64) -> Opened {
        let direct = answer.response.url().clone();
        self.update(|seen| {
            seen.direct = Some(direct);
            seen.redirects.extend(answer.redirects);
        });
        Opened {
            response: answer.response,
            ahead,
        }
    }
}

/// Returns an ETag without quotes, and without the marks of a server that compresses.
fn plain_etag(etag: &str) -> String {
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    etag.strip_suffix("-gzip").unwrap_or(etag).to_owned()
}

/// Parses `bytes START-LAST/TOTAL` into start, end (exclusive) and total.
fn parse_content_range(value: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    Some((
        start.parse().ok()?,
        last.parse::<u64>().ok()?.checked_add(1)?,
        total.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some((0, 10, 100)));
        for bad in [
            "bytes */100",
            "bytes 0-9/*",
            "0-9/100",
            "bytes -9/100",
            "bytes 0-18446744073709551615/1",
        ] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in ".{0,60}") {
            let _ = (parse_content_range(&text), plain_etag(&text));
        }
    }
}
