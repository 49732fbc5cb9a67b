//! Remotes as they are: https with an authority, http with a password, ssh with keys and known
//! hosts; and remotes that stall or lie.

#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]
#![expect(
    clippy::disallowed_methods,
    reason = "cargo is found by the environment of the test"
)]

mod server;
#[path = "../workbench/mod.rs"]
mod workbench;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Child,
};

use server::{Fault, GitServer, free_port, is_open, tls_file};
use ssh_key::{LineEnding, PrivateKey, private::Ed25519Keypair};
use workbench::{Bench, write};

/// `me:secret` as HTTP's basic authentication writes it.
const LOGIN: &str = "bWU6c2VjcmV0";

#[test]
fn https_is_fetched_from_those_whom_a_known_authority_vouches_for() {
    let bench = Bench::new();
    let server = GitServer::start(bench.path(), true, None);
    let url = format!("https://localhost:{}/remote.git", server.port);
    let flags = ["--remote", url.as_str(), "--branch", "main"];
    let commit = bench.release("two", "");
    let running = bench.start_and_settle(&flags);
    let problem = bench.update().update.problem.unwrap();
    assert!(problem.contains("certificate"), "{problem}");
    running.crash();
    let authority = tls_file("ca.pem");
    let environment = [("SSL_CERT_FILE", authority.as_os_str())];
    let _running = bench.start_in(&environment, &flags);
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().commit, commit);
}

#[test]
fn a_private_remote_is_fetched_with_a_credential_helper_or_a_token_in_the_address() {
    let bench = Bench::new();
    let server = GitServer::start(bench.path(), false, Some(LOGIN));
    let url = format!("http://127.0.0.1:{}/remote.git", server.port);
    let flags = ["--remote", url.as_str(), "--branch", "main"];
    let two = bench.release("two", "");
    let running = bench.start_and_settle(&flags);
    let problem = bench.update().update.problem.unwrap();
    assert!(problem.contains("no login was accepted"), "{problem}");
    let helper = "!f() { echo username=me; echo password=secret; }; f";
    bench.git_checkout(&["config", "credential.helper", helper]);
    assert_eq!(bench.update().update.accepted.unwrap().commit, two);
    running.crash();
    bench.git_checkout(&["config", "--unset", "credential.helper"]);
    let wrong = url.replace("http://", "http://me:hidden@");
    let running = bench.start(&["--remote", &wrong, "--branch", "main"]);
    let problem = bench.update().update.problem.unwrap();
    assert!(!problem.contains("hidden"), "{problem}");
    running.crash();
    let three = bench.release("three", "");
    let right = url.replace("http://", "http://me:secret@");
    let _running = bench.start(&["--remote", &right, "--branch", "main"]);
    assert_eq!(bench.update().update.accepted.unwrap().commit, three);
}

#[test]
fn a_remote_that_stalls_or_lies_costs_nothing() {
    let bench = Bench::new();
    let server = GitServer::start(bench.path(), false, None);
    let url = format!("http://127.0.0.1:{}/remote.git", server.port);
    let flags = [
        "--remote",
        &url,
        "--branch",
        "main",
        "--fetch-timeout",
        "2s",
    ];
    let _running = bench.start_and_settle(&flags);
    let pid = bench.report().unwrap().child.pid;
    let commit = bench.release("two", "");
    for (fault, said) in [
        (Fault::Stall, "took longer than 2 s"),
        (Fault::Lie, "could not fetch"),
    ] {
        *server.fault.lock().unwrap() = fault;
        let report = bench.update();
        let problem = report.update.problem.unwrap();
        assert!(problem.contains(said), "{fault:?}: {problem}");
        assert_eq!(report.child.pid, pid);
    }
    *server.fault.lock().unwrap() = Fault::None;
    assert_eq!(bench.update().update.accepted.unwrap().commit, commit);
}

/// An SSH server for one user and one key; killed when dropped.
struct Sshd {
    process: Child,
    port: u16,
    host: PrivateKey,
    user: String,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn key(name: &str) -> PrivateKey {
    // It need not be secret.
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    PrivateKey::new(Ed25519Keypair::from_seed(&seed).into(), name).unwrap()
}

fn save(key: &PrivateKey, path: &Path) {
    write(path, &key.to_openssh(LineEnding::LF).unwrap());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Sshd {
    /// Starts one that lets `user_key` in; `None` where there is no sshd.
    fn start(bench: &Bench, user_key: &PrivateKey) -> Option<Self> {
        let program = ["/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"];
        let program = program.iter().find(|path| Path::new(path).exists())?;
        let folder = bench.path().join("sshd");
        let (host, port) = (key("host"), free_port());
        save(&host, &folder.join("host_key"));
        let authorized = user_key.public_key().to_openssh().unwrap();
        write(&folder.join("authorized_keys"), &authorized);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host_key\nPidFile none\n\
             AuthorizedKeysFile {0}/authorized_keys\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nSetEnv PATH={1}\n",
            folder.display(),
            path.to_string_lossy()
        );
        write(&folder.join("config"), &config);
        // Where it is started by root, it wants an empty folder of its own.
        let _ = fs::create_dir_all("/run/sshd");
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(folder.join("log"))
            .unwrap();
        let process = shared::process::blocking_command(program)
            .args(["-D", "-e", "-f"])
            .arg(folder.join("config"))
            .stderr(log)
            .spawn()
            .unwrap();
        let user = nix::unistd::User::from_uid(nix::unistd::getuid());
        let user = user.unwrap().unwrap().name;
        let server = Self {
            process,
            port,
            host,
            user,
        };
        bench.wait("sshd listens", || is_open(port).then_some(()));
        Some(server)
    }
}

#[test]
fn ssh_is_fetched_from_known_hosts_with_a_key_file() {
    let bench = Bench::new();
    let mine = key("mine");
    let Some(server) = Sshd::start(&bench, &mine) else {
        shared::term::note("SKIPPED: there is no sshd here (apt-get install openssh-server)");
        return;
    };
    let home = bench.path().join("home");
    let url = format!(
        "ssh://{}@127.0.0.1:{}{}/remote.git",
        server.user,
        server.port,
        bench.path().display()
    );
    let flags = ["--remote", url.as_str(), "--branch", "main"];
    let environment = environment(&home);
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_os_str()))
        .collect();
    let commit = bench.release("two", "");
    let running = bench.start_in(&environment, &flags);
    bench.settled();
    let problem = bench.update().update.problem.unwrap();
    assert!(
        problem.contains("known_hosts") || problem.contains("host"),
        "{problem}"
    );
    let public = server.host.public_key().to_openssh().unwrap();
    write(
        &home.join(".ssh/known_hosts"),
        &format!("[127.0.0.1]:{} {public}\n", server.port),
    );
    let problem = bench.update().update.problem.unwrap();
    assert!(problem.contains("no login was accepted"), "{problem}");
    running.crash();
    save(&mine, &home.join(".ssh/id_ed25519"));
    let _running = bench.start_in(&environment, &flags);
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().commit, commit);
}

/// A home of our own, in which cargo is still found and no agent is.
fn environment(home: &Path) -> Vec<(&'static str, PathBuf)> {
    let own = std::env::home_dir().unwrap();
    let kept = |name: &str, default: &str| {
        std::env::var_os(name).map_or_else(|| own.join(default), PathBuf::from)
    };
    vec![
        ("HOME", home.to_owned()),
        ("CARGO_HOME", kept("CARGO_HOME", ".cargo")),
        ("RUSTUP_HOME", kept("RUSTUP_HOME", ".rustup")),
        ("SSH_AUTH_SOCK", PathBuf::new()),
    ]
}
