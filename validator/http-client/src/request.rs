//! A request whose answer is read whole, within a deadline over all attempts.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Method, Url,
    header::{ACCEPT_ENCODING, HeaderMap},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    client::{Encoding, HttpClient, Outgoing, SentBody},
    credentials::Credentials,
    error::{HttpError, shown, without_user},
};

/// What takes the body of an answer, chunk by chunk.
pub trait Body {
    /// Takes the next chunk of the body.
    fn take(&mut self, chunk: &[u8]);
}

impl Body for Vec<u8> {
    fn take(&mut self, chunk: &[u8]) {
        self.extend_from_slice(chunk);
    }
}

/// One request, described so that it can be repeated.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    method: Method,
    url: Url,
    credentials: Option<Credentials>,
    sent: Option<SentBody>,
    max_bytes: u64,
    deadline: Duration,
}

impl HttpRequest {
    /// A GET with limits on the size of the body and on the time for all attempts.
    pub fn get(url: Url, max_bytes: u64, deadline: Duration) -> Self {
        Self {
            method: Method::GET,
            url,
            credentials: None,
            sent: None,
            max_bytes,
            deadline,
        }
    }

    /// A POST of JSON: a value of our own, which always has a JSON form. Only for requests that
    /// may be repeated.
    pub fn post(url: Url, json: &impl Serialize, max_bytes: u64, deadline: Duration) -> Self {
        Self {
            method: Method::POST,
            sent: Some(SentBody {
                kind: "application/json",
                bytes: serde_json::to_vec(json).unwrap_or_default().into(),
            }),
            ..Self::get(url, max_bytes, deadline)
        }
    }

    /// A PUT of bytes of this content type.
    pub fn put(
        url: Url,
        kind: &'static str,
        bytes: Bytes,
        max_bytes: u64,
        deadline: Duration,
    ) -> Self {
        Self {
            method: Method::PUT,
            sent: Some(SentBody { kind, bytes }),
            ..Self::get(url, max_bytes, deadline)
        }
    }

    pub fn delete(url: Url, max_bytes: u64, deadline: Duration) -> Self {
        Self {
            method: Method::DELETE,
            ..Self::get(url, max_bytes, deadline)
        }
    }

    /// Adds credentials, which go to the address's own origin only.
    #[must_use]
    pub fn credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Sends it and returns the body of a success.
    pub async fn send(&self, client: &HttpClient) -> Result<Vec<u8>, HttpError> {
        self.receive(client, Vec::new).await
    }

    /// Sends it; each attempt begins a body anew, that of a success is returned.
    pub async fn receive<B: Body>(
        &self,
        client: &HttpClient,
        begin: impl Fn() -> B,
    ) -> Result<B, HttpError> {
        let attempts = async {
            let mut failed = 0;
            loop {
                match self.attempt(client, begin()).await {
                    Ok(body) => return Ok(body),
                    Err(error) => client.options().retry.pause(error, &mut failed).await?,
                }
            }
        };
        self.in_time(attempts).await
    }

    /// Sends it and parses the body as JSON.
    pub async fn json<T: DeserializeOwned>(&self, client: &HttpClient) -> Result<T, HttpError> {
        let body = self.send(client).await?;
        serde_json::from_slice(&body).map_err(|error| self.malformed("the JSON expected", error))
    }

    /// Asks once for the headers of an answer, whatever its status.
    pub async fn headers(&self, client: &HttpClient) -> Result<HeaderMap, HttpError> {
        let mut request = reqwest::Request::new(Method::HEAD, without_user(&self.url));
        let identity = reqwest::header::HeaderValue::from_static("identity");
        request.headers_mut().insert(ACCEPT_ENCODING, identity);
        let answer = async {
            let sent = client.library().execute(request).await;
            sent.map_err(|error| HttpError::connection(&self.url, &error))
        };
        Ok(self.in_time(answer).await?.headers().clone())
    }

    /// An error that says that the body is not what was expected.
    pub fn malformed(&self, expected: &'static str, reason: impl ToString) -> HttpError {
        HttpError::Malformed {
            url: shown(&self.url),
            expected,
            reason: reason.to_string(),
        }
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, HttpError> {
        let late = || {
            let reason = format!("no complete answer within {} s", self.deadline.as_secs());
            HttpError::no_answer(&self.url, reason)
        };
        let done = tokio::time::timeout(self.deadline, work).await;
        done.unwrap_or_else(|_| Err(late()))
    }

    async fn attempt<B: Body>(&self, client: &HttpClient, mut body: B) -> Result<B, HttpError> {
        let _connection = client.connection().await;
        let outgoing = Outgoing {
            method: self.method.clone(),
            url: &self.url,
            start: None,
            credentials: self.credentials.as_ref(),
            sent: self.sent.as_ref(),
            encoding: Encoding::Any,
        };
        let mut response = client.exchange(&outgoing).await?.response;
        let too_large = || HttpError::TooLarge {
            url: shown(&self.url),
            max: self.max_bytes,
        };
        if response
            .content_length()
            .is_some_and(|length| length > self.max_bytes)
        {
            return Err(too_large());
        }
        let mut left = self.max_bytes;
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| HttpError::connection(&self.url, &error))?;
            let Some(chunk) = chunk else { return Ok(body) };
            let bytes = chunk.len() as u64;
            client.count(bytes).await;
            left = left.checked_sub(bytes).ok_or_else(too_large)?;
            body.take(&chunk);
        }
    }
}
