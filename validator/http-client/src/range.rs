//! The reading of a range piece by piece: resumed where a connection broke, ended where it stalls.

use std::{ops::Range, time::Instant};

use bytes::Bytes;
use reqwest::Response;

use crate::{
    client::HttpClient,
    error::HttpError,
    remote::{Opened, RemoteFile, Whole},
};

/// Fewest bytes that have to come in within [`crate::Timeouts::trickle`].
const TRICKLE: u64 = 16 << 10;

impl RemoteFile {
    /// Reads a range in order, over one connection at a time, resuming where one broke.
    pub fn read<'a>(&'a self, client: &'a HttpClient, range: Range<u64>) -> RangeReader<'a> {
        RangeReader {
            client,
            file: self,
            at: range.start,
            end: range.end,
            failed: 0,
            whole: Whole::PassOver,
            open: None,
        }
    }

    /// Reads a whole range into memory.
    pub async fn range(
        &self,
        client: &HttpClient,
        range: Range<u64>,
    ) -> Result<Vec<Bytes>, HttpError> {
        self.read(client, range).collect().await
    }

    /// The same for one of many ranges: an error if the server sends the whole file, which would
    /// be sent as often. [`RemoteFile::lacks_ranges`] tells this error from others.
    pub async fn part(
        &self,
        client: &HttpClient,
        range: Range<u64>,
    ) -> Result<Vec<Bytes>, HttpError> {
        let mut reader = self.read(client, range);
        reader.whole = Whole::Refuse;
        reader.collect().await
    }
}

/// Reads a range of a file piece by piece.
#[derive(Debug)]
pub struct RangeReader<'a> {
    client: &'a HttpClient,
    file: &'a RemoteFile,
    at: u64,
    end: u64,
    /// Attempts in a row without progress.
    failed: u32,
    whole: Whole,
    open: Option<Open>,
}

/// An answer that is being read.
#[derive(Debug)]
struct Open {
    response: Response,
    /// Bytes before the range that are still to come.
    ahead: u64,
    /// Where the reading of this answer began.
    from: u64,
    since: Instant,
    lately: u64,
}

impl RangeReader<'_> {
    /// Returns the next bytes; `None` at the end of the range.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        while self.at < self.end {
            match self.piece().await {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => {
                    self.at += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Err(error) => self.recover(error).await?,
            }
        }
        Ok(None)
    }

    async fn collect(mut self) -> Result<Vec<Bytes>, HttpError> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.next().await? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Makes ready for another attempt, or gives up.
    async fn recover(&mut self, error: HttpError) -> Result<(), HttpError> {
        let open = self.open.take();
        if open.is_some_and(|open| self.at - open.from >= TRICKLE) {
            self.failed = 0;
        }
        self.file.forget_redirect();
        let retry = self.client.options().retry;
        retry.pause(error, &mut self.failed).await
    }

    /// Reads what comes next; nothing if it comes before the range.
    async fn piece(&mut self) -> Result<Bytes, HttpError> {
        let file = self.file;
        let open = match &mut self.open {
            Some(open) => open,
            closed => {
                let range = self.at..self.end;
                let Opened { response, ahead } = file.open(self.client, &range, self.whole).await?;
                closed.insert(Open {
                    response,
                    ahead,
                    from: self.at,
                    since: Instant::now(),
                    lately: 0,
                })
            }
        };
        let piece = open.response.chunk().await;
        let piece = piece.map_err(|error| HttpError::connection(file.url(), &error))?;
        let Some(mut piece) = piece else {
            return Err(HttpError::no_answer(file.url(), "the answer ended early"));
        };
        let bytes = piece.len() as u64;
        self.client.count(bytes).await;
        open.lately += bytes;
        if open.since.elapsed() >= self.client.options().timeouts.trickle {
            if open.lately < TRICKLE {
                return Err(HttpError::no_answer(file.url(), "the answer only trickles"));
            }
            (open.since, open.lately) = (Instant::now(), 0);
        }
        let passed = open.ahead.min(bytes);
        open.ahead -= passed;
        let mut piece = piece.split_off(usize::try_from(passed).unwrap_or(usize::MAX));
        // A server that ignores ranges sends on; we don't listen.
        piece.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        Ok(piece)
    }
}
