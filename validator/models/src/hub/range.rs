//! Byte ranges of a file, checked against what the hub said of it before.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use url::Url;

use super::{
    Hub, HubError,
    address::RepositoryName,
    request::{text, transport},
};

/// Fewest bytes that have to come in while we wait for a small answer at most.
const TRICKLE: u64 = 16 << 10;

/// A file on the hub.
#[derive(Debug)]
pub struct RemoteFile {
    url: Url,
    /// Repository, commit and path.
    place: (RepositoryName, String, String),
    size: u64,
    sha256: Option<[u8; 32]>,
    seen: Mutex<Seen>,
}

/// What the hub's answers said of a file so far.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Where the redirects ended: saves asking the hub again for each range.
    direct: Option<Url>,
    etag: Option<String>,
    xet: bool,
}

impl RemoteFile {
    pub(super) fn new(
        url: Url,
        place: (RepositoryName, String, String),
        size: u64,
        sha256: Option<[u8; 32]>,
    ) -> Self {
        Self {
            url,
            place,
            size,
            sha256,
            seen: Mutex::default(),
        }
    }

    pub(super) const fn repository(&self) -> &RepositoryName {
        &self.place.0
    }

    pub(super) fn commit(&self) -> &str {
        &self.place.1
    }

    pub(super) fn path(&self) -> &str {
        &self.place.2
    }

    /// Returns the address, which names the file.
    pub fn name(&self) -> &str {
        self.url.as_str()
    }

    /// Returns the size by the hub's listing, in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the SHA-256 by the hub's listing.
    pub const fn sha256(&self) -> Option<[u8; 32]> {
        self.sha256
    }

    /// Returns whether the hub offered the file over xet.
    pub fn offers_xet(&self) -> bool {
        self.seen().xet
    }

    fn broken(&self, why: &str) -> HubError {
        HubError::Transport {
            url: self.url.to_string(),
            why: why.to_owned(),
        }
    }

    pub(super) fn contradiction(&self, why: impl Into<String>) -> HubError {
        HubError::Contradiction {
            url: self.url.to_string(),
            why: why.into(),
        }
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

impl Hub {
    /// Fetches `range` of a file, in order, resuming where a connection broke.
    pub async fn range(
        &self,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Vec<Bytes>, HubError> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        let mut tried = 0;
        while at < range.end {
            let before = at;
            let result = self.part(file, at..range.end, &mut at, &mut pieces).await;
            if at - before >= TRICKLE {
                tried = 0;
            }
            if let Err(error) = result {
                file.update(|seen| seen.direct = None);
                self.pause_after(error, &mut tried).await?;
            }
        }
        Ok(pieces)
    }

    /// Fetches what one answer gives of `range`.
    async fn part(
        &self,
        file: &RemoteFile,
        range: Range<u64>,
        at: &mut u64,
        pieces: &mut Vec<Bytes>,
    ) -> Result<(), HubError> {
        let mut response = self.open(file, &range).await?;
        let (mut since, mut lately) = (Instant::now(), 0);
        while *at < range.end {
            let piece = response
                .chunk()
                .await
                .map_err(|error| transport(&file.url, &error))?;
            let Some(mut piece) = piece else {
                return Err(file.broken("the answer ended early"));
            };
            lately += piece.len() as u64;
            if since.elapsed() >= self.shared.options.patience.answer {
                if lately < TRICKLE {
                    return Err(file.broken("the answer only trickles"));
                }
                (since, lately) = (Instant::now(), 0);
            }
            self.fetched.add(piece.len() as u64);
            self.shared.pace.pass(piece.len() as u64).await;
            // A server that ignores ranges sends on; we don't listen.
            piece.truncate(usize::try_from(range.end - *at).unwrap_or(usize::MAX));
            *at += piece.len() as u64;
            pieces.push(piece);
        }
        Ok(())
    }

    async fn open(&self, file: &RemoteFile, range: &Range<u64>) -> Result<Response, HubError> {
        let start = file.seen().direct.unwrap_or_else(|| file.url.clone());
        let wanted = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = self.send(&start, &file.url, Some(&wanted)).await?;
        let response = answer.response;
        let total = match response.status() {
            StatusCode::PARTIAL_CONTENT => Some(file.check_content_range(&response, range)?),
            _ if range.start == 0 => response.content_length(),
            _ => return Err(file.contradiction("the server ignores byte ranges")),
        };
        if total.is_some_and(|total| total != file.size) {
            let (listed, served) = (file.size, total.unwrap_or_default());
            let why = format!("the listing says {listed} bytes, the server {served}");
            return Err(file.contradiction(why));
        }
        file.check_identity(&response, answer.linked_etag.as_deref())?;
        let direct = response.url().clone();
        file.update(|seen| {
            seen.direct = Some(direct);
            seen.xet |= answer.xet;
        });
        Ok(response)
    }
}

impl RemoteFile {
    /// Checks that the answer is the range asked for; returns the size of the whole file.
    fn check_content_range(&self, answer: &Response, range: &Range<u64>) -> Result<u64, HubError> {
        let value = answer
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok());
        let parsed = value.and_then(parse_content_range);
        let length = answer.content_length();
        match parsed {
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
                let shown: String = value.unwrap_or("nothing").chars().take(80).collect();
                Err(self.contradiction(format!("asked for bytes {start}-{end}, got {shown:?}")))
            }
        }
    }

    /// Checks that the bytes are those of the same file as before.
    fn check_identity(&self, answer: &Response, linked: Option<&str>) -> Result<(), HubError> {
        let of_content = linked.filter(|etag| etag.len() == 64);
        if let (Some(etag), Some(sha256)) = (of_content, self.sha256)
            && !etag.eq_ignore_ascii_case(&hex::encode(sha256))
        {
            return Err(self.contradiction("its ETag is not the SHA-256 of the hub's listing"));
        }
        let etag = text(answer, "etag");
        let before = self.seen().etag;
        match (etag, before) {
            (Some(now), Some(before)) if now != before => {
                Err(self.contradiction("the file changed while it was fetched"))
            }
            (Some(now), None) => {
                self.update(|seen| seen.etag = Some(now));
                Ok(())
            }
            _ => Ok(()),
        }
    }
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
            let _ = parse_content_range(&text);
        }
    }
}
