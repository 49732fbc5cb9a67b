//! Killed at any moment, over and over, while commits arrive, the operator works in the checkout and
//! a prompt runs `git status` there: at the end one good child runs the newest good commit, the
//! checkout is as the operator left it, and nothing is left behind.
//!
//! What happens follows from a seed, though not exactly when. `scripts/supervisor-faults` runs it for
//! longer than the checks do.

#![expect(
    clippy::disallowed_methods,
    reason = "the script says in the environment how long and with which seed"
)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    self_update::yield_supervisor,
    workbench::{Bench, Running, subprocesses, try_git, write},
};
use supervisor::home::Home;

/// Quick to notice commits, and on probation long enough to be hit there.
const FLAGS: [&str; 8] = [
    "--bins",
    "app,supervisor",
    "--interval",
    "1s",
    "--hold-off",
    "0",
    "--probation",
    "300ms",
];
const PHASES: [&str; 7] = [
    "polling",
    "building",
    "testing",
    "switching",
    "probation",
    "accepting",
    "rolling-back",
];
/// How long a phase is waited for that may not come.
const PHASE_PATIENCE: Duration = Duration::from_secs(4);
/// How long the newest commit may take at the end, back-off of everything that failed included.
const END_PATIENCE: Duration = Duration::from_mins(10);

/// SplitMix64: the same events for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % most as u64) as usize
    }

    fn one_in(&mut self, most: usize) -> bool {
        self.below(most) == 0
    }
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Supervisor,
    Child,
    Both,
    /// A step of an update that is under way.
    Worker,
    /// What waits to become the child.
    Launcher,
}

struct Run<'a> {
    bench: &'a Bench,
    running: Running<'a>,
    chance: Chance,
    versions: usize,
}

impl Run<'_> {
    /// Upstream gets something new, good or bad.
    fn push(&mut self) {
        self.versions += 1;
        let version = format!("v{}", self.versions);
        match self.chance.below(8) {
            0 => {
                self.bench.write("docs/notes.md", &version);
                self.bench.commit(&version);
                self.bench.push();
            }
            1 => drop(self.bench.release(&version, "crash")),
            2 => {
                // Taken back, and something else in its place.
                self.bench.release(&version, "");
                self.bench.git_work(&["reset", "-q", "--hard", "HEAD~1"]);
                self.bench.release(&format!("{version} again"), "");
            }
            _ => drop(self.bench.release(&version, "")),
        }
    }

    /// The operator edits, commits, or thinks better of it.
    fn work(&mut self) {
        let notes = self.bench.checkout().join("NOTES");
        write(&notes, &format!("{}\n", self.chance.below(1000)));
        let checkout = self.bench.checkout();
        match self.chance.below(3) {
            0 => {
                until_done(&checkout, &["add", "NOTES"]);
                until_done(
                    &checkout,
                    &["commit", "-q", "--allow-empty", "-m", "mine", "NOTES"],
                );
            }
            1 => until_done(&checkout, &["checkout", "-q", "--", "NOTES"]),
            _ => {}
        }
    }

    fn wait_for_a_moment(&mut self) {
        if self.chance.one_in(3) {
            let most = Duration::from_millis(self.chance.below(1500) as u64);
            // The moment is the fault.
            thread::park_timeout(most);
            return;
        }
        let phase = PHASES[self.chance.below(PHASES.len())];
        let began = Instant::now();
        while began.elapsed() < PHASE_PATIENCE {
            let report = self.bench.report();
            if report.is_some_and(|report| report.update.phase == phase) {
                return;
            }
            // Between two looks.
            thread::park_timeout(Duration::from_millis(3));
        }
    }

    fn strike(&mut self) {
        const VICTIMS: [Victim; 6] = [
            Victim::Supervisor,
            Victim::Supervisor,
            Victim::Child,
            Victim::Both,
            Victim::Worker,
            Victim::Launcher,
        ];
        let victim = VICTIMS[self.chance.below(VICTIMS.len())];
        let children = self.bench.children().into_iter().map(|child| child.pid);
        let supervisor = self.running.pid();
        let victims: Vec<u32> = match victim {
            Victim::Supervisor => vec![supervisor],
            Victim::Child => children.collect(),
            Victim::Both => children.chain([supervisor]).collect(),
            Victim::Worker => subprocesses(supervisor, "worker"),
            Victim::Launcher => subprocesses(supervisor, "launch"),
        };
        for pid in victims {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        if matches!(victim, Victim::Supervisor | Victim::Both) {
            self.running.process.wait().unwrap();
        }
        self.see_that_it_runs();
    }

    /// What pm2 or systemd would do.
    fn see_that_it_runs(&mut self) {
        if self.running.process.try_wait().unwrap().is_some() {
            self.running = self.bench.start(&FLAGS);
        }
        assert!(
            self.bench.children().len() <= 1,
            "{:?}",
            self.bench.children()
        );
    }

    /// From here on nobody is killed, and the newest commit is good.
    fn settle(&mut self) {
        let newest = self.bench.release("newest", "");
        let began = Instant::now();
        loop {
            self.see_that_it_runs();
            let report = self.bench.report();
            let done = report.as_ref().is_some_and(|report| {
                let accepted = report.update.accepted.as_ref();
                accepted.is_some_and(|version| version.commit == newest)
                    && report.update.phase == "idle"
                    && report.child.state == "running"
            });
            if done && self.bench.runs().last().is_some_and(|run| run == "newest") {
                break;
            }
            assert!(
                began.elapsed() < END_PATIENCE,
                "the newest commit does not run\n{report:#?}\n{}",
                self.bench.supervisor_log()
            );
            // Between two looks.
            thread::park_timeout(Duration::from_millis(50));
        }
        assert_eq!(self.bench.children().len(), 1);
    }
}

/// Shown with `--nocapture`, or when the test fails.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Git is refused while another git holds the lock; people type it again.
fn until_done(folder: &Path, args: &[&str]) {
    let mut last = String::new();
    for _ in 0..1000 {
        let output = try_git(folder, args);
        if output.status.success() {
            return;
        }
        last = crate::workbench::text(&output);
        // Nothing of that name to put back, or nothing to commit.
        if !last.contains(".lock") {
            return;
        }
    }
    assert_eq!(last, "", "git {args:?} never got the lock");
}

/// What a process that was killed may have left half done.
fn half_done(home: &Home) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![home.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let parts = [".tmp", ".new-", "tmp-", "tmp_"];
            if parts.iter().any(|part| name.starts_with(part))
                || name.contains("_git2_")
                || name.ends_with(".lock") && name != "app.lock" && name != "Cargo.lock"
            {
                found.push(path);
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) && name != "target" {
                folders.push(path);
            }
        }
    }
    found
}

/// Ends the prompt, also when something is wrong.
struct Prompt<'a>(&'a AtomicBool);

impl Drop for Prompt<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn suffer(seed: u64, kills: usize) {
    let bench = Bench::new();
    yield_supervisor(&bench, "become_real();");
    bench.write("docs/notes.md", "none\n");
    bench.release("v0", "");
    bench.git_checkout(&["pull", "-q"]);
    write(&bench.checkout().join("NOTES"), "0\n");
    bench.git_checkout(&["add", "NOTES"]);
    bench.git_checkout(&["commit", "-q", "-m", "mine"]);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        // A prompt: it takes the lock of the checkout's index each time.
        let prompt = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let status = try_git(&bench.checkout(), &["status", "--porcelain"]);
                assert!(status.status.success());
                // A person presses enter now and then.
                thread::park_timeout(Duration::from_millis(30));
            }
        });
        let prompt_ends = Prompt(&ended);
        let mut run = Run {
            bench: &bench,
            running: bench.start_and_settle(&FLAGS),
            chance: Chance(seed),
            versions: 0,
        };
        let (mut head, mut status) = (String::new(), String::new());
        for number in 0..kills {
            if run.chance.one_in(2) {
                run.push();
            }
            if run.chance.one_in(3) {
                run.work();
            }
            head = bench.git_checkout(&["rev-parse", "HEAD"]);
            status = bench.git_checkout(&["status", "--porcelain"]);
            run.wait_for_a_moment();
            run.strike();
            if number % 20 == 19 {
                say(&format!("{} kills, {} versions", number + 1, run.versions));
            }
        }
        run.settle();
        drop(prompt_ends);
        prompt.join().unwrap();
        assert_eq!(bench.git_checkout(&["rev-parse", "HEAD"]), head);
        assert_eq!(bench.git_checkout(&["status", "--porcelain"]), status);
        bench.git_checkout(&["fsck", "--strict"]);
        assert!(!bench.checkout().join(".git/index.lock").exists());
        nothing_is_left(&bench, run.running);
    });
}

fn nothing_is_left(bench: &Bench, mut running: Running<'_>) {
    // What was being written a moment ago is left to whoever may write it.
    for path in half_done(&bench.home) {
        let times = fs::FileTimes::new().set_modified(UNIX_EPOCH);
        if let Ok(file) = fs::File::open(path) {
            file.set_times(times).unwrap();
        }
    }
    let pid = bench.report().unwrap().child.pid;
    running.process.kill().unwrap();
    running.process.wait().unwrap();
    let running = bench.start(&FLAGS);
    let report = bench.update();
    assert_eq!(report.child.pid, pid, "the child runs on");
    assert_eq!(half_done(&bench.home), Vec::<PathBuf>::new());
    let releases = fs::read_dir(bench.home.releases()).unwrap().count();
    assert!(releases <= 4, "{releases} releases");
    running.signal(Signal::SIGTERM);
    assert!(running.ended().success());
    assert_eq!(bench.children(), []);
}

#[test]
fn whoever_is_killed_it_comes_right_in_the_end() {
    let told = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = told("SUPERVISOR_FAULTS_SEED").unwrap_or(13);
    let kills = told("SUPERVISOR_FAULTS_KILLS").unwrap_or(12);
    say(&format!("seed {seed}, {kills} kills"));
    suffer(seed, kills as usize);
}
