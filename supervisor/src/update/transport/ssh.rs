//! Git's smart protocol through the `ssh` program, as git itself does it.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use git2::{
    Error, ErrorClass, ErrorCode,
    transport::{Service, SmartSubtransport, SmartSubtransportStream},
};
use nix::unistd::{User, getpgrp, getuid};
use reqwest::Url;

use super::{Bounded, broken, no_login, only_fetching, outside};
use crate::update::login::Login;

/// As much of what ssh complains about is kept, in bytes.
const MAX_COMPLAINT: u64 = 4096;
/// How long to wait for the complaint of an ssh that has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// The operator's `~/.ssh/config` applies but for these: nobody is there to answer questions, an
/// unknown host is never accepted, and nothing is left running.
const OPTIONS: [&str; 7] = [
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ClearAllForwardings=yes",
    "ControlMaster=no",
    "ConnectTimeout=30",
    "ServerAliveInterval=30",
    "ServerAliveCountMax=4",
];

/// Talks to one SSH remote.
pub(super) struct Ssh {
    login: Login,
}

impl Ssh {
    pub(super) fn new(login: Login) -> Self {
        Self { login }
    }
}

impl SmartSubtransport for Ssh {
    fn action(
        &self,
        url: &str,
        service: Service,
    ) -> Result<Box<dyn SmartSubtransportStream>, Error> {
        // Later rounds go through the same stream.
        if service != Service::UploadPackLs {
            return Err(only_fetching());
        }
        let address = Address::parse(url)
            .ok_or_else(|| outside(ErrorCode::Invalid, "that is not an address for ssh"))?;
        Ok(Box::new(Bounded::new(Session::open(
            &address,
            &self.login,
        )?)))
    }

    fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Returns whether fetching from an address needs the `ssh` program.
pub(crate) fn is_ssh(url: &str) -> bool {
    Address::parse(url).is_some() && !std::path::Path::new(url).exists()
}

/// Where a repository is. None of it can be taken for an option or for the text of a shell.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
}

impl Address {
    /// Reads `ssh://[user@]host[:port]/path` and `[user@]host:path`.
    fn parse(text: &str) -> Option<Self> {
        let address = match text.split_once("://") {
            Some(("ssh" | "ssh+git" | "git+ssh", _)) => Self::of_url(&Url::parse(text).ok()?)?,
            Some(_) => return None,
            None => Self::of_scp(text)?,
        };
        let plain = |text: &str, also: &[u8]| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || also.contains(&byte);
            !text.starts_with('-') && !text.is_empty() && text.bytes().all(plain)
        };
        let sound = plain(&address.host, b".-_:%")
            && address.user.iter().all(|user| plain(user, b".-_+@"))
            && !address.path.is_empty()
            && !address.path.starts_with('-')
            && !address.path.contains(char::is_control);
        sound.then_some(address)
    }

    fn of_url(url: &Url) -> Option<Self> {
        let decode = |text: &str| {
            let bytes = percent_encoding::percent_decode_str(text);
            bytes.decode_utf8().ok().map(String::from)
        };
        let path = decode(url.path())?;
        let user = decode(url.username())?;
        Some(Self {
            user: (!user.is_empty()).then_some(user),
            host: url.host_str()?.trim_matches(['[', ']']).to_owned(),
            port: url.port(),
            // `/~user` is somebody's home.
            path: path
                .strip_prefix("/~")
                .map_or_else(|| path.clone(), |home| format!("~{home}")),
        })
    }

    fn of_scp(text: &str) -> Option<Self> {
        let (place, path) = match text.find("]:") {
            Some(at) => (&text[..=at], &text[at + 2..]),
            None => text.split_once(':')?,
        };
        let (user, host) = match place.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, place),
        };
        let inner = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let (host, port) = match inner.map(|inner| (inner, inner.split_once(':'))) {
            Some((_, Some((host, port)))) if !port.contains(':') => {
                (host, Some(port.parse().ok()?))
            }
            Some((inner, _)) => (inner, None),
            None => (host, None),
        };
        Some(Self {
            user,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }

    /// The command for the other side, whose shell reads it.
    fn command(&self) -> String {
        let mut command = "git-upload-pack '".to_owned();
        for char in self.path.chars() {
            match char {
                // csh looks at the second within quotes too.
                '\'' | '!' => drop(write!(command, "'\\{char}'")),
                char => command.push(char),
            }
        }
        command + "'"
    }
}

/// A running ssh; killed when dropped.
struct Session {
    ssh: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    complaint: Receiver<Vec<u8>>,
}

impl Session {
    /// Connects, and waits for the first byte, so that a failure to connect can be told from others.
    fn open(address: &Address, login: &Login) -> Result<Self, Error> {
        let machine = |error: io::Error| {
            let text = match error.kind() {
                io::ErrorKind::NotFound => "there is no program `ssh` here".to_owned(),
                _ => format!("could not start ssh: {error}"),
            };
            Error::new(ErrorCode::GenericError, ErrorClass::Os, text)
        };
        let mut ssh = command(address, login).spawn().map_err(machine)?;
        let (Some(to), Some(from), Some(mut errors)) =
            (ssh.stdin.take(), ssh.stdout.take(), ssh.stderr.take())
        else {
            return Err(machine(io::Error::other("no pipes")));
        };
        let (said, complaint) = sync_channel(1);
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = (&mut errors).take(MAX_COMPLAINT).read_to_end(&mut text);
            let _ = said.send(text);
            // It must not wait for a reader.
            let _ = io::copy(&mut errors, &mut io::sink());
        });
        let mut session = Self {
            ssh,
            to,
            from: BufReader::new(from),
            complaint,
        };
        match session.from.fill_buf() {
            Ok([]) => Err(session.failure()),
            Ok(_) => Ok(session),
            Err(error) => Err(machine(error)),
        }
    }

    /// Says why ssh has ended, or is ending.
    fn failure(&mut self) -> Error {
        let complaint = self.complaint.recv_timeout(PATIENCE).unwrap_or_default();
        let complaint = String::from_utf8_lossy(&complaint);
        let lines = complaint.lines().map(str::trim);
        // The banner of a host key that has changed is all of these.
        let lines = lines.filter(|line| line.contains(|char: char| char.is_alphanumeric()));
        let text = lines.collect::<Vec<_>>().join("; ");
        if text.contains("IDENTIFICATION HAS CHANGED") {
            let text = "its host key is not the one in known_hosts: somebody may be listening";
            return outside(ErrorCode::Certificate, text);
        }
        if text.contains("Host key verification failed") {
            let text = format!("its host key is not in known_hosts ({text})");
            return outside(ErrorCode::Certificate, &text);
        }
        if text.contains("Permission denied (") {
            return no_login(&format!("ssh: {text}"));
        }
        let text = if text.is_empty() {
            "the remote hung up".to_owned()
        } else {
            format!("ssh: {text}")
        };
        outside(ErrorCode::GenericError, &text)
    }
}

fn command(address: &Address, login: &Login) -> Command {
    let mut command = shared::process::blocking_command("ssh");
    command.arg("-aTx");
    for option in OPTIONS {
        command.args(["-o", option]);
    }
    if let Some(known) = known_hosts() {
        command.arg("-o").arg(known);
    }
    for key in login.ssh_keys.iter().filter(|key| key.is_file()) {
        command.arg("-i").arg(key);
    }
    if let Some(port) = address.port {
        command.args(["-p", &port.to_string()]);
    }
    if let Some(user) = &address.user {
        command.args(["-l", user]);
    }
    command
        .args(["--", &address.host, &address.command()])
        // Ours, so that it ends with the step.
        .process_group(getpgrp().as_raw())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// `ssh` looks into the home of the account; where `$HOME` is another, its known hosts count too.
fn known_hosts() -> Option<String> {
    let home = std::env::home_dir()?;
    let account = User::from_uid(getuid()).ok().flatten()?.dir;
    let known: PathBuf = home.join(".ssh/known_hosts");
    let name = known.to_str().filter(|name| !name.contains(['"', '\\']))?;
    (home != account).then(|| {
        format!(
            "GlobalKnownHostsFile=/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2 \"{name}\""
        )
    })
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        // A remote ends its last answer by hanging up; ssh says whether it meant to.
        if read == 0 && !buffer.is_empty() && !self.ssh.wait()?.success() {
            return Err(broken(&self.failure()));
        }
        Ok(read)
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(Option<String>, String, Option<u16>, String)> {
        let address = Address::parse(text)?;
        Some((address.user, address.host, address.port, address.path))
    }

    #[test]
    fn addresses_are_read_as_git_reads_them() {
        let me = || Some("me".to_owned());
        for (text, user, host, port, path) in [
            (
                "ssh://me@h.org:2222/a/b.git",
                me(),
                "h.org",
                Some(2222),
                "/a/b.git",
            ),
            ("git+ssh://h/a%20b", None, "h", None, "/a b"),
            ("ssh://me@h/~you/a", me(), "h", None, "~you/a"),
            ("ssh://[::1]:22/a", None, "::1", Some(22), "/a"),
            ("me@h.org:a/b.git", me(), "h.org", None, "a/b.git"),
            ("h:/a", None, "h", None, "/a"),
            ("me@[::1]:a", me(), "::1", None, "a"),
            ("[h:23]:a", None, "h", Some(23), "a"),
        ] {
            let expected = (user, host.to_owned(), port, path.to_owned());
            assert_eq!(parsed(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn nothing_in_an_address_becomes_an_option_or_a_command() {
        for text in [
            "ssh://-oProxyCommand=id/a",
            "ssh://-oProxyCommand=id@h/a",
            "-oProxyCommand=id:a",
            "ssh://h;id/a",
            "ssh://$(id)/a",
            "ssh://h`id`@h/a",
            "h:-x",
            "ssh://h",
            "h:",
            ":a",
            "@h:a",
            "https://h/a",
            "/a:b/c",
            "h:a\nb",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        let address = Address::parse("h:a'; id; !b").unwrap();
        assert_eq!(address.command(), r"git-upload-pack 'a'\''; id; '\!'b'");
    }
}
