//! The other side of a fetch: git's own HTTP program behind a small server, with TLS, a password,
//! and faults.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// What the server does with a pack, or with everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Sends half of it, and then nothing more.
    Stall,
    Lie,
    Endless,
    /// Sends everybody to another server.
    Redirect(String),
}

/// A branch as git lists it; a remote may list it again and again.
pub(crate) const ENDLESS_REF: &str =
    "003e1111111111111111111111111111111111111111 refs/heads/again\n";

/// A git server on loopback that runs until the test process ends.
pub(crate) struct GitServer {
    pub(crate) port: u16,
    pub(crate) fault: Arc<Mutex<Fault>>,
}

/// A request: method, path, query, headers in lower case, body.
struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl GitServer {
    /// Serves the repositories in `root` to those who know `login`, over TLS if asked.
    pub(crate) fn start(root: &Path, tls: bool, login: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            fault: Arc::new(Mutex::new(Fault::None)),
        };
        let config = tls.then(tls_config);
        let (root, fault) = (root.to_owned(), Arc::clone(&server.fault));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, fault, config) = (root.clone(), Arc::clone(&fault), config.clone());
                // A client that hangs up, or does not trust us, is not an error here.
                std::thread::spawn(move || match config {
                    None => answer(stream, &root, login, &fault),
                    Some(config) => {
                        let connection = ServerConnection::new(config).unwrap();
                        answer(StreamOwned::new(connection, stream), &root, login, &fault)
                    }
                });
            }
        });
        server
    }
}

/// Returns a file of the server's identity, signed by the authority in `ca.pem`.
pub(crate) fn tls_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tls")
        .join(name)
}

fn tls_config() -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(tls_file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).unwrap();
    // More than one provider may be linked in, so say which.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

fn answer<S: Read + Write>(
    mut stream: S,
    root: &Path,
    login: Option<&str>,
    fault: &Mutex<Fault>,
) -> std::io::Result<()> {
    let request = read(&mut BufReader::new(&mut stream))?;
    let header = |name: &str| {
        let found = request.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    if login.is_some_and(|login| header("authorization") != format!("Basic {login}")) {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\n\
                       Content-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(refusal.as_bytes());
    }
    let fault = fault.lock().unwrap().clone();
    if let Fault::Redirect(other) = &fault {
        let target = format!("{other}{}?{}", request.path, request.query);
        return write!(
            stream,
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {target}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
    }
    if fault == Fault::Endless {
        return list_for_ever(&mut stream);
    }
    let mut output = backend(root, &request, header("content-type"))?;
    let at = output
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap_or(0);
    let mut body = output.split_off((at + 4).min(output.len()));
    if fault == Fault::Lie && request.method == "POST" {
        let half = body.len() / 2;
        body[half..].reverse();
    }
    let head = String::from_utf8_lossy(&output);
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let headers: String = head
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("Status: "))
        .map(|line| format!("{line}\r\n"))
        .collect();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if fault == Fault::Stall && request.method == "POST" {
        stream.write_all(&body[..body.len() / 2])?;
        stream.flush()?;
        std::thread::park_timeout(Duration::from_mins(10));
        return Ok(());
    }
    stream.write_all(&body)?;
    stream.flush()
}

/// Until the other side hangs up.
fn list_for_ever(stream: &mut impl Write) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\
                Content-Type: application/x-git-upload-pack-advertisement\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"001e# service=git-upload-pack\n0000")?;
    let some = ENDLESS_REF.repeat(1000);
    loop {
        stream.write_all(some.as_bytes())?;
    }
}

fn read(stream: &mut impl BufRead) -> std::io::Result<Request> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((key, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((key.to_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(key, _)| key == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok());
    let mut body = Vec::new();
    stream.take(length.unwrap_or(0)).read_to_end(&mut body)?;
    Ok(Request {
        method,
        path,
        query,
        headers,
        body,
    })
}

/// Lets `git http-backend` answer, as a web server does.
fn backend(root: &Path, request: &Request, content_type: &str) -> std::io::Result<Vec<u8>> {
    let mut child = shared::process::blocking_command("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", &request.path)
        .env("QUERY_STRING", &request.query)
        .env("CONTENT_TYPE", content_type)
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&request.body)?;
    }
    Ok(child.wait_with_output()?.stdout)
}

/// Returns a port of 127.0.0.1 that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Returns whether somebody listens on a port of 127.0.0.1.
pub(crate) fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}
