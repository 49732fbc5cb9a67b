//! Git's smart protocol over HTTP: one GET for what there is, one POST for each round of what we want.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    time::Duration,
};

use git2::{
    Error, ErrorCode,
    transport::{Service, SmartSubtransport, SmartSubtransportStream},
};
use reqwest::{
    Proxy, StatusCode, Url,
    blocking::{Client, RequestBuilder, Response},
    header::{ACCEPT, CONTENT_TYPE, HeaderValue, LOCATION, WWW_AUTHENTICATE},
    redirect::Policy,
};
use shared::causes::one_line;

use super::{Bounded, broken, no_login, only_fetching, outside};
use crate::update::login::{Account, Login};

const REFS: &str = "/info/refs?service=git-upload-pack";
const REFS_TYPE: &str = "application/x-git-upload-pack-advertisement";
const REQUEST_TYPE: &str = "application/x-git-upload-pack-request";
const RESULT_TYPE: &str = "application/x-git-upload-pack-result";
/// Servers give the smart protocol only to what calls itself git.
const AGENT: &str = concat!("git/2.0 (supervisor ", env!("CARGO_PKG_VERSION"), ")");
const CONNECT: Duration = Duration::from_secs(30);
/// A server that sends nothing for this long has hung up; the whole has the step's deadline.
const IDLE: Duration = Duration::from_mins(2);
const MAX_REDIRECTS: usize = 5;

/// Talks to one HTTP remote.
pub(super) struct Http {
    login: Login,
    server: RefCell<Option<Server>>,
}

impl Http {
    pub(super) fn new(login: Login) -> Self {
        let server = RefCell::default();
        Self { login, server }
    }
}

impl SmartSubtransport for Http {
    fn action(
        &self,
        url: &str,
        service: Service,
    ) -> Result<Box<dyn SmartSubtransportStream>, Error> {
        match service {
            Service::UploadPackLs => {
                let (server, refs) = Server::find(url, &self.login)?;
                self.server.replace(Some(server));
                Ok(Box::new(Bounded::new(Exchange::answered(refs))))
            }
            Service::UploadPack => match &*self.server.borrow() {
                Some(server) => Ok(Box::new(Exchange::to_ask(server.post()))),
                None => Err(outside(ErrorCode::Invalid, "the remote was closed")),
            },
            Service::ReceivePackLs | Service::ReceivePack => Err(only_fetching()),
        }
    }

    fn close(&self) -> Result<(), Error> {
        self.server.take();
        Ok(())
    }
}

/// Where the repository turned out to be, and who we are there.
struct Server {
    client: Client,
    /// Address of the repository, without name and password.
    repository: String,
    account: Option<Account>,
}

impl Server {
    /// Asks for the branches: follows redirects, and logs in when asked to, with what the address says,
    /// then with what a helper says. A login never goes to another server than the one it is for.
    fn find(address: &str, login: &Login) -> Result<(Self, Response), Error> {
        let mut url = parse(&format!("{}{REFS}", address.trim_end_matches('/')))?;
        let mut given = strip_account(&mut url);
        let client = client(login, &url)?;
        let (mut account, mut helpers_asked, mut redirects) = (None, false, 0);
        let response = loop {
            let response = send(with_account(client.get(url.clone()), account.as_ref()))?;
            if response.status().is_redirection() {
                redirects += 1;
                let next = redirected(&url, &response, redirects)?;
                if next.origin() != url.origin() {
                    (given, account, helpers_asked) = (None, None, false);
                }
                url = next;
            } else if response.status() == StatusCode::UNAUTHORIZED && asks_for_password(&response)
            {
                let user = given.as_ref().map(|(user, _)| user.clone());
                account = given.take_if(|_| account.is_none());
                if account.is_none() && !std::mem::replace(&mut helpers_asked, true) {
                    let repository = repository(&url)?;
                    account = login.ask_helpers(&repository, user.as_deref());
                }
                if account.is_none() {
                    return Err(no_login("the address and git's credential helpers"));
                }
            } else {
                break expect(response, REFS_TYPE)?;
            }
        };
        let server = Self {
            client,
            repository: repository(&url)?,
            account,
        };
        Ok((server, response))
    }

    fn post(&self) -> RequestBuilder {
        let url = format!("{}/git-upload-pack", self.repository);
        let post = self.client.post(url).header(CONTENT_TYPE, REQUEST_TYPE);
        with_account(post.header(ACCEPT, RESULT_TYPE), self.account.as_ref())
    }
}

fn client(login: &Login, url: &Url) -> Result<Client, Error> {
    let builder = Client::builder()
        .user_agent(AGENT)
        // We follow them ourselves: the login must not, and what is asked next goes there too.
        .redirect(Policy::none())
        .connect_timeout(CONNECT)
        .timeout(IDLE);
    let builder = match login.proxy(&repository(url)?) {
        None => builder,
        Some(none) if none.is_empty() => builder.no_proxy(),
        Some(proxy) => builder.proxy(Proxy::all(proxy).map_err(failed)?),
    };
    builder.build().map_err(failed)
}

fn parse(url: &str) -> Result<Url, Error> {
    Url::parse(url).map_err(|error| outside(ErrorCode::Invalid, &error.to_string()))
}

/// Takes name and password out of an address.
fn strip_account(url: &mut Url) -> Option<Account> {
    let decode = |text: &str| {
        let bytes = percent_encoding::percent_decode_str(text);
        bytes.decode_utf8_lossy().into_owned()
    };
    let account = (
        decode(url.username()),
        decode(url.password().unwrap_or_default()),
    );
    // They fail for what has no server, which is never asked.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    (account != Account::default()).then_some(account)
}

fn with_account(request: RequestBuilder, account: Option<&Account>) -> RequestBuilder {
    match account {
        Some((user, password)) => request.basic_auth(user, Some(password)),
        None => request,
    }
}

fn asks_for_password(response: &Response) -> bool {
    let mut asked = response.headers().get_all(WWW_AUTHENTICATE).iter();
    asked.any(|way| way.as_bytes().to_ascii_lowercase().starts_with(b"basic"))
}

/// Returns where a redirect leads.
fn redirected(from: &Url, response: &Response, redirects: usize) -> Result<Url, Error> {
    let refuse = |why: &str| Err(outside(ErrorCode::Invalid, &format!("it redirects {why}")));
    let to = response.headers().get(LOCATION);
    let to = to.and_then(|to| from.join(to.to_str().ok()?).ok());
    let Some(mut to) = to else {
        return refuse("to nowhere");
    };
    strip_account(&mut to);
    if redirects > MAX_REDIRECTS {
        return refuse("too often");
    }
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        (_, scheme) => refuse(&format!("from {} to {scheme}", from.scheme())),
    }
}

/// Returns the repository's own address.
fn repository(url: &Url) -> Result<String, Error> {
    let Some(repository) = url.as_str().strip_suffix(REFS) else {
        let text = format!("{url} is not where a repository lists its branches");
        return Err(outside(ErrorCode::Invalid, &text));
    };
    Ok(repository.to_owned())
}

fn send(request: RequestBuilder) -> Result<Response, Error> {
    request.send().map_err(failed)
}

fn failed(error: reqwest::Error) -> Error {
    let text = one_line(&error.without_url());
    let code = if text.contains("certificate") {
        ErrorCode::Certificate
    } else {
        ErrorCode::GenericError
    };
    outside(code, &text)
}

/// Refuses what is not git's answer, such as the page of a web site.
fn expect(response: Response, kind: &str) -> Result<Response, Error> {
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        return Err(no_login(&format!("it; the remote answers {status}")));
    }
    if status != StatusCode::OK {
        let text = format!("it answers {status}");
        return Err(outside(ErrorCode::GenericError, &text));
    }
    let found = response.headers().get(CONTENT_TYPE);
    if found.map(HeaderValue::as_bytes) != Some(kind.as_bytes()) {
        let text = "it is not a git repository, or speaks git's old HTTP protocol only";
        return Err(outside(ErrorCode::GenericError, text));
    }
    Ok(response)
}

/// A request that is collected while libgit2 writes, sent when it reads, and its answer.
struct Exchange {
    request: Vec<u8>,
    post: Option<RequestBuilder>,
    answer: Option<Response>,
}

impl Exchange {
    fn answered(answer: Response) -> Self {
        Self {
            request: Vec::new(),
            post: None,
            answer: Some(answer),
        }
    }

    fn to_ask(post: RequestBuilder) -> Self {
        Self {
            request: Vec::new(),
            post: Some(post),
            answer: None,
        }
    }
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.post.is_none() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.request.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(post) = self.post.take() {
            let request = std::mem::take(&mut self.request);
            let answer = send(post.body(request)).and_then(|answer| expect(answer, RESULT_TYPE));
            self.answer = Some(answer.map_err(|error| broken(&error))?);
        }
        let Some(answer) = &mut self.answer else {
            return Ok(0);
        };
        answer
            .read(buffer)
            .map_err(|error| broken(&outside(ErrorCode::GenericError, &one_line(&error))))
    }
}
