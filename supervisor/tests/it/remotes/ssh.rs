//! Fetching over SSH, from a real server and from bad ones.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Child,
};

use ssh_key::{LineEnding, PrivateKey, private::Ed25519Keypair};

use super::server::{ENDLESS_REF, free_port, is_open};
use crate::workbench::{Bench, Running, write};

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

    /// Address of a repository beside the remote, in the short form.
    fn address(&self, bench: &Bench, repository: &str) -> String {
        let (user, port, root) = (&self.user, self.port, bench.path().display());
        format!("{user}@[127.0.0.1:{port}]:{root}/{repository}")
    }
}

/// Has this run in place of what a client asks for.
fn answer_with(bench: &Bench, user_key: &PrivateKey, command: &str) {
    let key = user_key.public_key().to_openssh().unwrap();
    let line = format!("command=\"{command}\" {key}");
    write(&bench.path().join("sshd/authorized_keys"), &line);
}

const HELP: &str = "there is no sshd here (apt-get install openssh-server)";

/// Starts a supervisor in a home of its own, which knows `host` if there is one.
fn start<'a>(
    bench: &'a Bench,
    server: &Sshd,
    host: Option<&PrivateKey>,
    flags: &[&str],
) -> Running<'a> {
    let home = bench.path().join("home");
    if let Some(host) = host {
        know(&home, server, host);
    }
    let environment = environment(&home);
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_os_str()))
        .collect();
    bench.start_in(&environment, flags)
}

fn know(home: &Path, server: &Sshd, host: &PrivateKey) {
    let public = host.public_key().to_openssh().unwrap();
    let line = format!("[127.0.0.1]:{} {public}\n", server.port);
    write(&home.join(".ssh/known_hosts"), &line);
}

#[test]
fn ssh_is_fetched_from_known_hosts_with_a_key_file() {
    let bench = Bench::new();
    let mine = key("mine");
    let Some(server) = Sshd::start(&bench, &mine) else {
        return e2e::skip(HELP);
    };
    let home = bench.path().join("home");
    let url = server.address(&bench, "remote.git");
    let flags = ["--remote", url.as_str(), "--branch", "main"];
    let commit = bench.release("two", "");
    let running = start(&bench, &server, None, &flags);
    bench.settled();
    let refused = |why: &str| {
        let problem = bench.update().update.problem.unwrap();
        assert!(problem.contains(why), "{problem}");
    };
    refused("its host key is not in known_hosts");
    know(&home, &server, &key("other"));
    refused("its host key is not the one in known_hosts");
    know(&home, &server, &server.host);
    refused("no login was accepted");
    running.crash();
    save(&key("unknown"), &home.join(".ssh/id_ed25519"));
    let running = start(&bench, &server, None, &flags);
    refused("no login was accepted");
    running.crash();
    save(&mine, &home.join(".ssh/id_ed25519"));
    let _running = start(&bench, &server, None, &flags);
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().commit, commit);
}

#[test]
fn a_shallow_clone_with_a_submodule_is_fetched_over_ssh() {
    let bench = Bench::new();
    let mine = key("mine");
    let Some(server) = Sshd::start(&bench, &mine) else {
        return e2e::skip(HELP);
    };
    fs::remove_dir_all(bench.checkout()).unwrap();
    let local = format!("file://{}/remote.git", bench.path().display());
    crate::workbench::git(
        bench.path(),
        &["clone", "-q", "--depth", "1", &local, "checkout"],
    );
    let (user, port, root) = (&server.user, server.port, bench.path().display());
    let url = format!("ssh://{user}@127.0.0.1:{port}{root}/remote.git");
    bench.git_checkout(&["remote", "set-url", "origin", &url]);
    save(&mine, &bench.path().join("home/deploy key"));
    let key_file = bench.path().join("home/deploy key");
    let flags = ["--ssh-key", key_file.to_str().unwrap()];
    let _running = start(&bench, &server, Some(&server.host), &flags);
    bench.settled();
    bench.add_submodule();
    let commit = bench.release("two", "");
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().commit, commit);
    bench.child_says("from a submodule");
}

#[test]
fn an_ssh_remote_that_lies_costs_nothing() {
    let bench = Bench::new();
    let mine = key("mine");
    let Some(server) = Sshd::start(&bench, &mine) else {
        return e2e::skip(HELP);
    };
    save(&mine, &bench.path().join("home/.ssh/id_ed25519"));
    let url = server.address(&bench, "remote.git");
    let flags = ["--remote", url.as_str(), "--branch", "main"];
    let _running = start(&bench, &server, Some(&server.host), &flags);
    bench.settled();
    let commit = bench.release("two", "");
    let endless = format!("yes {}", ENDLESS_REF.trim_end().replace(' ', "\\ "));
    for (command, said) in [
        (endless.as_str(), "has no end"),
        ("cat /dev/zero", "could not fetch"),
        ("echo sorry, not today >&2; exit 7", "sorry, not today"),
    ] {
        answer_with(&bench, &mine, command);
        let problem = bench.update().update.problem.unwrap();
        assert!(problem.contains(said), "{command}: {problem}");
    }
    let public = mine.public_key().to_openssh().unwrap();
    write(&bench.path().join("sshd/authorized_keys"), &public);
    assert_eq!(bench.update().update.accepted.unwrap().commit, commit);
}

#[test]
fn an_ssh_remote_that_hangs_is_left_at_the_deadline() {
    let bench = Bench::new();
    let mine = key("mine");
    let Some(server) = Sshd::start(&bench, &mine) else {
        return e2e::skip(HELP);
    };
    save(&mine, &bench.path().join("home/.ssh/id_ed25519"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    let never = format!("ssh://127.0.0.1:{silent}/remote.git");
    let url = server.address(&bench, "remote.git");
    for (url, command) in [
        (&url, "cat /dev/zero >&2"),
        (&url, "cat >/dev/null"),
        (&never, ""),
    ] {
        answer_with(&bench, &mine, command);
        let flags = ["--remote", url, "--branch", "main", "--fetch-timeout", "2s"];
        let running = start(&bench, &server, Some(&server.host), &flags);
        bench.settled();
        let problem = bench.update().update.problem.unwrap();
        assert!(
            problem.contains("took longer than 2 s"),
            "{url} {command}: {problem}"
        );
        running.crash();
    }
}

#[test]
fn doctor_says_that_ssh_is_missing() {
    let bench = Bench::new();
    let doctor = |remote: &str| {
        let state = bench.path().join("state");
        let mut command = shared::process::blocking_command(env!("CARGO_BIN_EXE_supervisor"));
        command
            .args([
                "doctor",
                "--child-name",
                "app",
                "--offline",
                "--branch",
                "main",
            ])
            .args(["--remote", remote])
            .env("SUPERVISOR_STATE_DIR", state)
            .env("PATH", bench.path())
            .current_dir(bench.checkout());
        crate::workbench::text(&command.output().unwrap())
    };
    let said = doctor("me@example.org:remote.git");
    assert!(said.contains("the remote needs it"), "{said}");
    let said = doctor("https://example.org/remote.git");
    assert!(said.contains("not needed"), "{said}");
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
