//! Trouble by name: what a server does wrong, to which requests, and how often.
//!
//! Long because each kind of trouble stands with its name.

use std::{
    convert::Infallible,
    io::Write as _,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The body trickles: 1 KiB each 50 ms.
    Slow,
    /// The request is never answered.
    Stall,
    /// The connection breaks after half of the body.
    Cut,
    /// The connection stays, but after half of the body nothing comes any more.
    StallMidway,
    /// The body is half as long as the metadata says, with an honest `Content-Length`.
    LyingLength,
    /// The first byte of the body is another one.
    WrongBytes,
    /// Every second answer has other bytes, so that two ranges of a file don't fit together.
    ChangingBody,
    /// `ETag` and `X-Linked-ETag` name another content.
    WrongEtag,
    /// 429 with `Retry-After: 1`.
    #[serde(rename = "429")]
    TooManyRequests,
    /// 500.
    #[serde(rename = "500")]
    ServerError,
    /// 503 with `Retry-After: 1`.
    #[serde(rename = "503")]
    Unavailable,
    /// A redirect leads to another host, which does have the content.
    ThirdHost,
    /// A redirect to the very same place.
    RedirectLoop,
    /// A redirect to plain http on a host that is not this machine.
    Downgrade,
    /// 200 with a web page.
    Html,
    /// The body never ends.
    Endless,
    /// 403, as for a repository whose terms were not accepted.
    Gated,
    /// The `Range` header is ignored: 200 with the whole.
    NoRanges,
    /// The body is compressed, whatever the client accepts; ranges are ignored.
    Gzip,
    /// 429 with the hub's own `RateLimit` header, and no `Retry-After`.
    RateLimit,
}

impl Fault {
    /// Every fault with its name.
    pub const ALL: [(Self, &'static str); 20] = [
        (Self::Slow, "slow"),
        (Self::Stall, "stall"),
        (Self::Cut, "cut"),
        (Self::StallMidway, "stall-midway"),
        (Self::LyingLength, "lying-length"),
        (Self::WrongBytes, "wrong-bytes"),
        (Self::ChangingBody, "changing-body"),
        (Self::WrongEtag, "wrong-etag"),
        (Self::TooManyRequests, "429"),
        (Self::ServerError, "500"),
        (Self::Unavailable, "503"),
        (Self::ThirdHost, "third-host"),
        (Self::RedirectLoop, "redirect-loop"),
        (Self::Downgrade, "downgrade"),
        (Self::Html, "html"),
        (Self::Endless, "endless"),
        (Self::Gated, "gated"),
        (Self::NoRanges, "no-ranges"),
        (Self::Gzip, "gzip"),
        (Self::RateLimit, "rate-limit"),
    ];

    /// Returns its name, as the command line and the dev endpoint spell it.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(fault, _)| *fault == self)
            .map_or("", |(_, name)| name)
    }
}

/// A name that is not a fault.
#[derive(Debug, thiserror::Error)]
#[error("no fault is called '{0}'")]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(fault, _)| *fault)
            .ok_or_else(|| UnknownFault(name.to_owned()))
    }
}

/// A fault, the requests it meets, and how often it happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub fault: Fault,
    /// Only where path and query contain this; everywhere if empty.
    #[serde(default)]
    pub on: String,
    /// Only for this method, such as `GET`.
    #[serde(default)]
    pub method: Option<String>,
    /// How many more requests it meets; without end if absent.
    #[serde(default)]
    pub times: Option<u32>,
}

impl Rule {
    /// A fault on every request.
    pub const fn always(fault: Fault) -> Self {
        Self {
            fault,
            on: String::new(),
            method: None,
            times: None,
        }
    }

    /// Only where path and query contain `part`.
    #[must_use]
    pub fn on(mut self, part: &str) -> Self {
        part.clone_into(&mut self.on);
        self
    }

    /// Only for this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only for the next `times` requests.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    fn meets(&self, request: &Request) -> bool {
        self.times != Some(0)
            && request.uri().to_string().contains(&self.on)
            && self
                .method
                .as_deref()
                .is_none_or(|method| request.method() == method)
    }
}

#[derive(Debug, Default)]
struct Book {
    rules: Vec<Rule>,
    met: u64,
}

/// The faults of one server. Cheap to clone; changes take effect with the next request.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    book: Arc<Mutex<Book>>,
    third_host: Option<Arc<str>>,
}

impl Faults {
    /// Makes an empty book whose [`Fault::ThirdHost`] leads to `authority` (`host:port`).
    pub fn with_third_host(authority: &str) -> Self {
        Self {
            book: Arc::default(),
            third_host: Some(authority.into()),
        }
    }

    /// Adds a rule; the first that meets a request decides.
    pub fn add(&self, rule: Rule) {
        self.locked(|book| book.rules.push(rule));
    }

    pub fn set(&self, rules: Vec<Rule>) {
        self.locked(|book| book.rules = rules);
    }

    pub fn clear(&self) {
        self.set(Vec::new());
    }

    /// Returns the rules, with what is left of their `times`.
    pub fn rules(&self) -> Vec<Rule> {
        self.locked(|book| book.rules.clone())
    }

    /// Returns how many requests met a fault so far.
    pub fn met(&self) -> u64 {
        self.locked(|book| book.met)
    }

    fn take(&self, request: &Request) -> Option<(Fault, u64)> {
        self.locked(|book| {
            let rule = book.rules.iter_mut().find(|rule| rule.meets(request))?;
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            book.met += 1;
            Some((rule.fault, book.met))
        })
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The middleware that commits the faults.
pub async fn inject(State(faults): State<Faults>, mut request: Request, next: Next) -> Response {
    let Some((fault, count)) = faults.take(&request) else {
        return next.run(request).await;
    };
    let target = request.uri().to_string();
    match fault {
        Fault::Stall => std::future::pending().await,
        Fault::TooManyRequests => later(StatusCode::TOO_MANY_REQUESTS, "We had to rate limit you"),
        Fault::ServerError => {
            super::error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
        Fault::Unavailable => later(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        Fault::RedirectLoop => redirect(&target),
        Fault::Downgrade => redirect("http://192.0.2.1/not/this/machine"),
        Fault::Html => (
            [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
            "<!DOCTYPE html><html><body><h1>Be right back</h1></body></html>\n",
        )
            .into_response(),
        Fault::Gated => {
            let message = "Access to this repository is restricted";
            let mut response = super::error(StatusCode::FORBIDDEN, message);
            let headers = response.headers_mut();
            headers.insert("x-error-code", HeaderValue::from_static("GatedRepo"));
            headers.insert("x-error-message", HeaderValue::from_static(message));
            response
        }
        Fault::Endless => Body::from_stream(stream::repeat_with(|| {
            Ok::<_, Infallible>(Bytes::from_static(&[b' '; 16 * 1024]))
        }))
        .into_response(),
        Fault::ThirdHost => elsewhere(next.run(request).await, faults.third_host.as_deref()),
        Fault::WrongEtag => wrong_etag(next.run(request).await),
        Fault::Slow | Fault::Cut | Fault::StallMidway | Fault::LyingLength | Fault::WrongBytes => {
            spoil(next.run(request).await, fault)
        }
        Fault::ChangingBody if count % 2 == 1 => spoil(next.run(request).await, Fault::WrongBytes),
        Fault::ChangingBody => next.run(request).await,
        Fault::NoRanges => {
            request.headers_mut().remove(header::RANGE);
            let mut response = next.run(request).await;
            response.headers_mut().remove(header::ACCEPT_RANGES);
            response
        }
        Fault::Gzip => {
            request.headers_mut().remove(header::RANGE);
            compressed(next.run(request).await).await
        }
        Fault::RateLimit => rate_limited(),
    }
}

fn later(status: StatusCode, message: &str) -> Response {
    let mut response = super::error(status, message);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// As the hub says it, by the draft `draft-ietf-httpapi-ratelimit-headers`.
fn rate_limited() -> Response {
    let message = "We had to rate limit you";
    let mut response = super::error(StatusCode::TOO_MANY_REQUESTS, message);
    let headers = response.headers_mut();
    let limit = HeaderValue::from_static("\"resolvers\";r=0;t=1");
    headers.insert("ratelimit", limit);
    let policy = HeaderValue::from_static("\"fixed window\";\"resolvers\";q=3000;w=300");
    headers.insert("ratelimit-policy", policy);
    response
}

/// Compresses the body of a successful answer; others pass unharmed.
async fn compressed(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if !parts.status.is_success() {
        return Response::from_parts(parts, body);
    }
    let compress = async {
        let bytes = to_bytes(body, usize::MAX).await.ok()?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&bytes).ok()?;
        encoder.finish().ok()
    };
    let Some(bytes) = compress.await else {
        return super::error(StatusCode::INTERNAL_SERVER_ERROR, "could not compress");
    };
    parts.headers.remove(header::ACCEPT_RANGES);
    let length = bytes.len().into();
    parts.headers.insert(header::CONTENT_LENGTH, length);
    let gzip = HeaderValue::from_static("gzip");
    parts.headers.insert(header::CONTENT_ENCODING, gzip);
    Response::from_parts(parts, Body::from(bytes))
}

fn redirect(to: &str) -> Response {
    let mut response = StatusCode::FOUND.into_response();
    if let Ok(location) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Points a redirect's absolute target at another host.
fn elsewhere(mut response: Response, third_host: Option<&str>) -> Response {
    let moved = response
        .headers()
        .get(header::LOCATION)
        .and_then(|location| {
            let (_, rest) = location
                .to_str()
                .ok()?
                .strip_prefix("http://")?
                .split_once('/')?;
            HeaderValue::from_str(&format!("http://{}/{rest}", third_host?)).ok()
        });
    if let Some(location) = moved {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn wrong_etag(mut response: Response) -> Response {
    let other = format!("\"{}\"", "ab".repeat(32));
    for name in [
        header::ETAG,
        header::HeaderName::from_static("x-linked-etag"),
    ] {
        if let Ok(value) = HeaderValue::from_str(&other)
            && response.headers().contains_key(&name)
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Spoils the body of a successful answer; others pass unharmed.
fn spoil(response: Response, fault: Fault) -> Response {
    use axum::body::HttpBody as _;
    let (mut parts, body) = response.into_parts();
    let declared = parts.headers.get(header::CONTENT_LENGTH);
    let length = declared
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .or_else(|| body.size_hint().exact());
    let (true, Some(length)) = (parts.status.is_success(), length) else {
        return Response::from_parts(parts, body);
    };
    let half = length / 2;
    parts.headers.insert(header::CONTENT_LENGTH, length.into());
    let body = match fault {
        Fault::Cut => Body::from_stream(first(body, half).chain(stream::once(async {
            // A pending body lets the server flush what it has before the break.
            tokio::task::yield_now().await;
            Err(axum::Error::new(std::io::Error::other(
                "cut by the fault 'cut'",
            )))
        }))),
        Fault::StallMidway => Body::from_stream(first(body, half).chain(stream::pending())),
        Fault::LyingLength => {
            parts.headers.insert(header::CONTENT_LENGTH, half.into());
            Body::from_stream(first(body, half))
        }
        Fault::Slow => Body::from_stream(trickle(body)),
        _ => {
            let mut fresh = true;
            Body::from_stream(body.into_data_stream().map(move |chunk| {
                let chunk = chunk?;
                if !std::mem::take(&mut fresh) || chunk.is_empty() {
                    return Ok(chunk);
                }
                let mut spoiled = chunk.to_vec();
                spoiled[0] ^= 0x20;
                Ok::<_, axum::Error>(Bytes::from(spoiled))
            }))
        }
    };
    Response::from_parts(parts, body)
}

/// The first `length` bytes of a body.
fn first(
    body: Body,
    length: u64,
) -> impl futures::Stream<Item = Result<Bytes, axum::Error>> + Send {
    body.into_data_stream().scan(length, |left, chunk| {
        let chunk = match chunk {
            Ok(mut chunk) if *left > 0 => {
                chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= chunk.len() as u64;
                Some(Ok(chunk))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        std::future::ready(chunk)
    })
}

fn trickle(body: Body) -> impl futures::Stream<Item = Result<Bytes, axum::Error>> + Send {
    body.into_data_stream()
        .flat_map(|chunk| {
            let pieces: Vec<_> = match chunk {
                Ok(chunk) => (0..chunk.len())
                    .step_by(1024)
                    .map(|at| Ok(chunk.slice(at..chunk.len().min(at + 1024))))
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(pieces)
        })
        .then(async |piece| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            piece
        })
}
