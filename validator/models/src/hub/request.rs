//! One request: redirects by hand, statuses told apart, bodies no longer than asked for.

use std::{error::Error as _, future::Future, time::Duration};

use bytes::Bytes;
use reqwest::{
    Response, StatusCode,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER},
};
use url::Url;

use super::{
    Hub, HubError,
    redirect::{self, MAX_HOPS},
};

/// An answer, and what the redirects to it said.
pub(super) struct Answer {
    pub(super) response: Response,
    /// ETag the hub gives the file it redirects to.
    pub(super) linked_etag: Option<String>,
    /// Whether the hub offers the file over xet.
    pub(super) xet: bool,
}

impl Hub {
    /// Gets a body of at most `limit` bytes, trying again while that may help.
    pub(super) async fn get_limited(&self, url: Url, limit: u64) -> Result<Bytes, HubError> {
        self.persist(|| async {
            let _permit = self.connection().await;
            let answer = tokio::time::timeout(self.shared.options.patience.answer, async {
                let answer = self.send(&url, &url, None).await?;
                self.read_limited(&url, answer.response, limit).await
            });
            answer.await.unwrap_or_else(|_| {
                let why = "the answer took too long".into();
                Err(HubError::Transport {
                    url: url.to_string(),
                    why,
                })
            })
        })
        .await
    }

    async fn read_limited(
        &self,
        url: &Url,
        mut response: Response,
        limit: u64,
    ) -> Result<Bytes, HubError> {
        let too_large = || HubError::TooLarge {
            url: url.to_string(),
            limit,
        };
        if response
            .content_length()
            .is_some_and(|length| length > limit)
        {
            return Err(too_large());
        }
        let is_html = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        if is_html {
            let why = "a web page instead of data".into();
            return Err(HubError::Contradiction {
                url: url.to_string(),
                why,
            });
        }
        let mut body = Vec::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| transport(url, &error))?
        {
            self.fetched.add(piece.len() as u64);
            self.shared.pace.pass(piece.len() as u64).await;
            if (body.len() + piece.len()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.into())
    }

    /// Runs an operation again while that may help, as often as patience allows.
    pub(super) async fn persist<T, F>(
        &self,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, HubError>
    where
        F: Future<Output = Result<T, HubError>>,
    {
        let mut tried = 0;
        loop {
            match operation().await {
                Err(error) => self.pause_after(error, &mut tried).await?,
                done => return done,
            }
        }
    }

    /// Waits before the next try, or gives up.
    pub(super) async fn pause_after(
        &self,
        error: HubError,
        tried: &mut u32,
    ) -> Result<(), HubError> {
        let patience = self.shared.options.patience;
        *tried += 1;
        let mut pause = patience.pause * 2_u32.saturating_pow(tried.saturating_sub(1).min(16));
        if let HubError::RateLimited {
            after: Some(after), ..
        } = &error
        {
            pause = *after;
        }
        if !error.may_pass() || *tried >= patience.tries || pause > patience.longest_pause {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "trying the hub again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Sends one request and follows its redirects. `shown` is the address errors name: those of
    /// redirects carry signatures.
    pub(super) async fn send(
        &self,
        url: &Url,
        shown: &Url,
        range: Option<&str>,
    ) -> Result<Answer, HubError> {
        let endpoint = &self.shared.options.endpoint;
        let mut url = url.clone();
        let (mut linked_etag, mut xet) = (None, false);
        for _ in 0..=MAX_HOPS {
            let at_hub = redirect::same_origin(&url, endpoint);
            let mut request = self.shared.client.get(url.clone());
            request = request.header(ACCEPT_ENCODING, "identity");
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            if let (true, Some(authorization)) = (at_hub, &self.shared.authorization) {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            let response = request
                .send()
                .await
                .map_err(|error| transport(shown, &error))?;
            linked_etag = text(&response, "x-linked-etag").or(linked_etag);
            xet |= response.headers().contains_key("x-xet-hash");
            if !response.status().is_redirection() {
                check_status(&response, shown, at_hub)?;
                return Ok(Answer {
                    response,
                    linked_etag,
                    xet,
                });
            }
            let refuse = |why| HubError::Redirect {
                url: shown.to_string(),
                why,
            };
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let location = location.ok_or_else(|| refuse("a redirect to nowhere".into()))?;
            url = redirect::follow(endpoint, &url, location).map_err(refuse)?;
        }
        let why = format!("more than {MAX_HOPS} redirects");
        Err(HubError::Redirect {
            url: shown.to_string(),
            why,
        })
    }
}

fn check_status(response: &Response, shown: &Url, at_hub: bool) -> Result<(), HubError> {
    let status = response.status();
    let url = shown.to_string();
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(()),
        StatusCode::TOO_MANY_REQUESTS => Err(HubError::RateLimited {
            url,
            after: retry_after(response),
        }),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let why = "the file is shorter than the hub's listing says".into();
            Err(HubError::Contradiction { url, why })
        }
        // Elsewhere these mean that a signed link has expired.
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::GONE
        | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS
            if at_hub =>
        {
            let why = text(response, "x-error-code").unwrap_or_else(|| status.to_string());
            Err(HubError::Unavailable { url, why })
        }
        status => Err(HubError::Status {
            url,
            status: status.as_u16(),
        }),
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.min(24 * 3600)))
}

/// Returns a header's value, without quotes and weakness mark.
pub(super) fn text(response: &Response, header: &str) -> Option<String> {
    let value = response.headers().get(header)?.to_str().ok()?;
    Some(
        value
            .trim_start_matches("W/")
            .trim_matches('"')
            .chars()
            .take(200)
            .collect(),
    )
}

/// Describes a connection's end, without the address: that of a redirect carries a signature.
pub(super) fn transport(shown: &Url, error: &reqwest::Error) -> HubError {
    let mut why = if error.is_timeout() {
        "no bytes for too long".to_owned()
    } else if error.is_connect() {
        "no connection".to_owned()
    } else {
        "the connection broke".to_owned()
    };
    let mut source = error.source();
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    HubError::Transport {
        url: shown.to_string(),
        why,
    }
}
