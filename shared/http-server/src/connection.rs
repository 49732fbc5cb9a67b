//! Connections: how many, how long, and what is said on them.

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{
    future::BoxFuture,
    stream::{FuturesUnordered, Stream, StreamExt as _},
};
use http_body_util::{Either, Full, StreamBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::{Exit, Failure};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Connections at a time; whoever comes beyond them is not answered.
const CONNECTIONS: usize = 32;

/// How long a head may take to come, and how long a whole answer may take to go.
const HEAD: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// How long an answer that goes on may go on; browsers ask again.
const MESSAGES: Duration = Duration::from_secs(3600);

/// The largest head.
const MAX_HEAD: usize = 16 << 10;

/// What somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// As it was sent, percent-encoded.
    pub path: String,
    pub query: Option<String>,
    /// The header `Host`, which a page of another site that a browser was tricked to (DNS rebinding) can't choose.
    pub host: Option<String>,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<String>,
}

/// Messages of an answer that goes on.
pub type Messages = Pin<Box<dyn Stream<Item = Bytes> + Send + Sync>>;

/// What is answered.
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    pub body: Either<Bytes, Messages>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

/// Answers what is asked.
pub type Handler = Arc<dyn Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync>;

impl Answer {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body: Either::Left(body.into()),
        }
    }

    /// A short text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into())
    }

    /// Server-sent events, for as long as they come.
    pub fn messages(messages: Messages) -> Self {
        Self {
            body: Either::Right(messages),
            ..Self::new(200, "text/event-stream", Bytes::new())
        }
    }

    /// `/live` and `/ready`, as orchestrators ask them: 200 or 503, with the reason.
    pub fn probe(reason: Option<String>) -> Self {
        match reason {
            None => Self::text(200, "ok\n"),
            Some(reason) => Self::text(503, format!("{reason}\n")),
        }
    }
}

/// Opens an address; `flag` is what named it.
pub fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let open = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    open().map_err(|error| {
        let (exit, hint) = match error.kind() {
            io::ErrorKind::PermissionDenied => (Exit::Denied, "ports below 1024 belong to root"),
            io::ErrorKind::AddrInUse => (Exit::Config, "another program has this port"),
            _ => (Exit::Config, "it must be an address of this machine"),
        };
        Failure::new(exit, format_args!("could not listen at {address}"))
            .caused_by(&error)
            .hint(format_args!("{hint}; choose another {flag}"))
    })
}

/// Whoever answers, and how many may ask at a time.
#[derive(Clone)]
pub struct Door {
    handler: Handler,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    pub fn new(handler: Handler) -> Self {
        Self {
            handler,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Accepts connections for as long as it is polled; dropping it ends them all.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), Failure> {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => open.push(self.connection(stream)),
                    Err(error) => {
                        // Out of file descriptors, most likely: accepting again at once would spin.
                        tracing::warn!(%error, "could not accept a connection");
                        sleep(Duration::from_secs(1)).await;
                    }
                },
                Some(()) = open.next() => {}
            }
        }
    }

    /// Answers on one connection, and closes it.
    pub async fn connection(&self, stream: TcpStream) {
        let Ok(_place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::debug!("too many connections: one is not answered");
            return;
        };
        let goes_on = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request: Request<Incoming>| {
            let (handler, goes_on) = (Arc::clone(&self.handler), Arc::clone(&goes_on));
            async move {
                let answer = answer(&handler, &request).await;
                let is_stream = matches!(answer.body, Either::Right(_));
                goes_on.store(is_stream, Ordering::Relaxed);
                Ok::<_, Infallible>(response(answer, request.method() == Method::HEAD))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .keep_alive(false)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut ended = timeout(ANSWER, &mut connection).await;
        if ended.is_err() && goes_on.load(Ordering::Relaxed) {
            ended = timeout(MESSAGES, connection).await;
        }
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "a connection ended badly");
        }
    }
}

async fn answer(handler: &Handler, request: &Request<Incoming>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = Answer::text(405, "only GET\n");
        answer.headers.push(("allow", "GET, HEAD".to_owned()));
        return answer;
    }
    let header = |headers: &HeaderMap, name: HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let headers = request.headers();
    let bearer = header(headers, AUTHORIZATION)
        .and_then(|value| value.strip_prefix("Bearer ").map(ToOwned::to_owned));
    let asked = Asked {
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(ToOwned::to_owned),
        host: header(headers, HOST),
        bearer,
    };
    handler(asked).await
}

type Body = Either<
    Full<Bytes>,
    StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync>>>,
>;

fn response(answer: Answer, head_only: bool) -> Response<Body> {
    let Answer {
        status,
        content_type,
        headers,
        body,
    } = answer;
    let body = match body {
        Either::Left(_) if head_only => Either::Left(Full::new(Bytes::new())),
        Either::Left(bytes) => Either::Left(Full::new(bytes)),
        Either::Right(messages) => {
            let frames = messages.map(|message| Ok(Frame::data(message)));
            Either::Right(StreamBody::new(Box::pin(frames) as Pin<Box<_>>))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let map = response.headers_mut();
    map.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    map.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    map.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            map.insert(HeaderName::from_static(name), value);
        }
    }
    response
}
