//! Files over xet, by `hf-hub`: chunks from many servers, stretch by stretch.
//!
//! A stretch bounds what the library may buffer, and a deadline on each piece what it may stall.
//! Nothing here is trusted: the bytes are hashed like any others, and whoever uses this falls back
//! on byte ranges at the first sign of trouble.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use hf_hub::HFClient;
use http_client::HttpError;
use tokio::sync::mpsc;

use crate::{Hub, HubFile};

/// Bytes asked of the library at once.
const STRETCH: u64 = 256 << 20;

impl Hub {
    /// Fetches `range` of a model's file over xet into `pieces`, in order. A receiver that hangs up
    /// ends it without an error.
    pub async fn over_xet(
        &self,
        file: &HubFile,
        range: Range<u64>,
        pieces: &mpsc::Sender<Bytes>,
    ) -> Result<(), HttpError> {
        let fail = |reason: String| HttpError::NoAnswer {
            url: file.name().to_owned(),
            reason,
        };
        let client = self.xet_client().map_err(|error| fail(error.to_string()))?;
        let [namespace, name] = file.repository().parts();
        let repository = client.model(namespace, name);
        let mut at = range.start;
        while at < range.end {
            let stretch = at..(at + STRETCH).min(range.end);
            let opened = repository
                .download_file_stream()
                .filename(file.path())
                .revision(file.commit())
                .range(stretch.clone())
                .send();
            let (_, mut stream) = self
                .in_time(opened, &fail)
                .await?
                .map_err(|error| fail(error.to_string()))?;
            while at < stretch.end {
                let piece = self.in_time(stream.next(), &fail).await?;
                let piece = piece.ok_or_else(|| fail("the answer ended early".into()))?;
                let mut piece = piece.map_err(|error| fail(error.to_string()))?;
                piece.truncate(usize::try_from(stretch.end - at).unwrap_or(usize::MAX));
                at += piece.len() as u64;
                self.http().count(piece.len() as u64).await;
                if pieces.send(piece).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = T>,
        fail: impl Fn(String) -> HttpError,
    ) -> Result<T, HttpError> {
        tokio::time::timeout(self.options.http.timeouts.stall, work)
            .await
            .map_err(|_| fail("no bytes over xet for too long".into()))
    }

    fn xet_client(&self) -> hf_hub::HFResult<HFClient> {
        let options = &self.options;
        let mut builder = HFClient::builder()
            .endpoint(http_client::without_user(&options.endpoint).as_str())
            .client(self.http().library().clone())
            .cache_enabled(false)
            .retry_max_attempts(1);
        if let Some(token) = &options.token {
            builder = builder.token(token.reveal());
        }
        builder.build()
    }
}
