//! A remote, a checkout, and a real supervisor to try things on.
//!
//! When a bench goes, it asserts what must always hold: there were never two children at once.

pub(crate) mod kernel;
mod unheard;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use supervisor::{
    child::{
        control::{FoundChild, find_left_behind, kill_group},
        group::ChildGroup,
    },
    control::{Reply, Request, ask},
    home::Home,
    report::Report,
};
use tempfile::TempDir;

/// Nothing here takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    dir: TempDir,
    pub(crate) home: Home,
}

/// A supervisor; killed with its child when dropped.
pub(crate) struct Running<'a> {
    pub(crate) process: Child,
    bench: &'a Bench,
}

impl Bench {
    /// Makes a remote with one commit of the test program, and a checkout of it.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sup")
            .tempdir_in("/tmp")
            .unwrap();
        let home = Home::of(&dir.path().join("state"), "app");
        let bench = Self { dir, home };
        fs::create_dir_all(bench.work()).unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/app");
        for file in ["Cargo.toml", "Cargo.lock", "src/main.rs", "src/behavior.rs"] {
            let to = bench.work().join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(fixture.join(file), to).unwrap();
        }
        bench.write("README.md", "one\n");
        bench.git_work(&["init", "-q", "-b", "main"]);
        bench.commit("one");
        git(
            bench.path(),
            &["clone", "-q", "--bare", "work", "remote.git"],
        );
        bench.git_work(&["remote", "add", "origin", "../remote.git"]);
        git(bench.path(), &["clone", "-q", "remote.git", "checkout"]);
        bench
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.path().join("work")
    }

    pub(crate) fn checkout(&self) -> PathBuf {
        self.path().join("checkout")
    }

    /// Writes a file where commits are made.
    pub(crate) fn write(&self, file: &str, text: &str) {
        write(&self.work().join(file), text);
    }

    /// Commits everything and returns the commit; it is not pushed.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git_work(&["add", "-A"]);
        self.git_work(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git_work(&["rev-parse", "HEAD"])
    }

    /// Pushes a new version of the program that behaves in a certain way.
    pub(crate) fn release(&self, version: &str, behavior: &str) -> String {
        self.write(
            "src/behavior.rs",
            &format!(
                "pub const VERSION: &str = {version:?};\npub const BEHAVIOR: &str = {behavior:?};\n"
            ),
        );
        let commit = self.commit(version);
        self.push();
        commit
    }

    /// Takes up a submodule from beside the remote; the program says a word of it.
    pub(crate) fn add_submodule(&self) {
        let part = self.path().join("part");
        git(self.path(), &["init", "-q", "-b", "main", "part"]);
        write(
            &part.join("word.rs"),
            "pub const WORD: &str = \"from a submodule\";\n",
        );
        git(&part, &["add", "-A"]);
        git(&part, &["commit", "-q", "-m", "part"]);
        let file = "protocol.file.allow=always";
        self.git_work(&["-c", file, "submodule", "add", "-q", "../part", "part"]);
        let main = fs::read_to_string(self.work().join("src/main.rs")).unwrap();
        let part = "mod behavior;\n#[path = \"../part/word.rs\"]\nmod word;";
        let main = main.replace("mod behavior;", part).replace(
            "println!(\"running {VERSION}\");",
            "println!(\"{}\", word::WORD);",
        );
        self.write("src/main.rs", &main);
    }

    /// Waits until the child has printed something.
    pub(crate) fn child_says(&self, text: &str) {
        self.wait(&format!("the child says {text:?}"), || {
            self.child_log().contains(text).then_some(())
        });
    }

    pub(crate) fn push(&self) {
        self.git_work(&["push", "-q", "-f", "origin", "main"]);
    }

    pub(crate) fn git_work(&self, args: &[&str]) -> String {
        git(&self.work(), args)
    }

    pub(crate) fn git_checkout(&self, args: &[&str]) -> String {
        git(&self.checkout(), args)
    }

    /// Runs the supervisor's program beside the test.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.base(args).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Runs the supervisor's program to its end.
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        self.command_in(&[], args)
    }

    pub(crate) fn command_in(&self, environment: &[(&str, &OsStr)], args: &[&str]) -> Output {
        let mut command = self.base(args);
        command.envs(environment.iter().copied()).output().unwrap()
    }

    pub(crate) fn base(
        &self,
        args: impl IntoIterator<Item: AsRef<OsStr>>,
    ) -> std::process::Command {
        let mut command = shared::process::blocking_command(env!("CARGO_BIN_EXE_supervisor"));
        command
            .args(args)
            .env("SUPERVISOR_STATE_DIR", self.path().join("state"))
            .env("CARGO_NET_OFFLINE", "true")
            .env_remove("NOTIFY_SOCKET")
            .current_dir(self.checkout());
        command
    }

    pub(crate) fn start(&self, extra: &[&str]) -> Running<'_> {
        self.start_in(&[], extra)
    }

    /// A folder that builds may write if `--build-path` names it.
    pub(crate) fn build_folder(&self) -> String {
        let folder = self.path().join("builds");
        fs::create_dir_all(&folder).unwrap();
        folder.display().to_string()
    }

    /// Starts a supervisor with other variables in its environment.
    pub(crate) fn start_in(&self, environment: &[(&str, &OsStr)], extra: &[&str]) -> Running<'_> {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.path().join("supervisor.log"))
            .unwrap();
        let process = self
            .base(flags(extra))
            .envs(environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        Running {
            process,
            bench: self,
        }
    }

    /// Starts a supervisor that is not expected to stay, and waits for its end.
    pub(crate) fn run(&self, extra: &[&str]) -> Output {
        self.base(flags(extra)).output().unwrap()
    }

    /// Starts a supervisor and waits until the first version runs.
    pub(crate) fn start_and_settle(&self, extra: &[&str]) -> Running<'_> {
        let running = self.start(extra);
        self.until("the first version runs", |report| {
            report.child.state == "running" && report.update.phase == "idle"
        });
        running
    }

    pub(crate) fn ask(&self, request: &Request) -> Option<Reply> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(ask(&self.home.control_socket(), request))
            .ok()
    }

    pub(crate) fn report(&self) -> Option<Report> {
        match self.ask(&Request::Status)? {
            Reply::Status(report) => Some(*report),
            _ => None,
        }
    }

    /// Asks for an update and waits until it has ended, one way or the other.
    pub(crate) fn update(&self) -> Report {
        self.wait("it can be asked", || {
            self.ask(&Request::Update {
                force: false,
                local: false,
            })
        });
        self.settled()
    }

    pub(crate) fn settled(&self) -> Report {
        self.until("the update has ended", |report| {
            report.update.phase == "idle" && report.child.state == "running"
        })
    }

    /// Waits until the supervisor reports something.
    pub(crate) fn until(&self, what: &str, done: impl Fn(&Report) -> bool) -> Report {
        self.wait(what, || self.report().filter(&done))
    }

    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "waited in vain until {what}\n{:#?}\n{}",
                self.report(),
                self.supervisor_log()
            );
            // The moment between two looks.
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
        }
    }

    pub(crate) fn supervisor_log(&self) -> String {
        fs::read_to_string(self.path().join("supervisor.log")).unwrap_or_default()
    }

    pub(crate) fn child_log(&self) -> String {
        fs::read_to_string(self.home.path().join("logs/app.log")).unwrap_or_default()
    }

    /// Versions that were started, in order.
    pub(crate) fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.home.path().join("runs")).unwrap_or_default();
        text.lines()
            .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
            .collect()
    }

    /// Checks which versions were started; the last may be on its way to say so.
    pub(crate) fn assert_runs(&self, expected: &[&str]) {
        self.wait("the child says that it was started", || {
            (self.runs().len() >= expected.len()).then_some(())
        });
        assert_eq!(self.runs(), expected);
    }

    pub(crate) fn children(&self) -> Vec<FoundChild> {
        find_left_behind(&self.home)
    }
}

impl Running<'_> {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Kills the supervisor, and it alone, the hard way.
    pub(crate) fn crash(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for the supervisor's end.
    pub(crate) fn ended(mut self) -> ExitStatus {
        let bench = self.bench;
        bench.wait("the supervisor ends", || self.process.try_wait().unwrap())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for child in self.children() {
            kill_group(child.pid);
        }
        if let Ok(group) = ChildGroup::of(&self.home) {
            group.kill();
            self.wait("nothing of the child runs", || {
                (!group.is_populated()).then_some(())
            });
            group.remove();
        }
        let doubles = fs::read_to_string(self.home.path().join("doubles")).unwrap_or_default();
        if !std::thread::panicking() {
            assert_eq!(
                doubles,
                "",
                "there were two children at once: {:?}",
                self.runs()
            );
        }
    }
}

/// The flags of most tests: updates come when asked for, and everything is quick.
fn flags(extra: &[&str]) -> Vec<String> {
    let flags = "--child-name app --bins app --profile dev --interval 1h --min-disk 0 \
                 --min-memory 0 --probation 200ms --ready-timeout 10s --stop-timeout 10s";
    let (ours, theirs) = match extra.iter().position(|arg| *arg == "--") {
        Some(at) => extra.split_at(at),
        None => (extra, &["--", "--name", "x y"][..]),
    };
    // Later flags win only if they are not given twice.
    let given = |flag: &str| ours.contains(&flag);
    let words: Vec<&str> = flags.split_whitespace().collect();
    let mut line: Vec<String> = Vec::new();
    for pair in words.chunks(2).filter(|pair| !given(pair[0])) {
        line.extend(pair.iter().map(ToString::to_string));
    }
    line.extend(ours.iter().chain(theirs).map(ToString::to_string));
    line
}

/// Runs git, which must succeed.
/// The supervisor's own processes that run a subcommand, such as the steps of an update.
pub(crate) fn subprocesses(supervisor: u32, subcommand: &str) -> Vec<u32> {
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    let pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(subcommand.as_bytes())
    })
    .collect()
}

pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let output = try_git(dir, args);
    assert!(output.status.success(), "git {args:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs git, whose outcome the caller judges.
pub(crate) fn try_git(dir: &Path, args: &[&str]) -> Output {
    shared::process::blocking_command("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap()
}

pub(crate) fn write(path: &Path, text: &str) {
    shared::file::write_atomic(path, text.as_bytes()).unwrap();
}

pub(crate) fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) {
    shared::file::write_atomic(path, bytes).unwrap();
}
