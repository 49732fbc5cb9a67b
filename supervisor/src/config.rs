//! The supervisor's configuration, checked and with units.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::ValueEnum;
use jiff::{SignedDuration, civil};
use serde::{Deserialize, Serialize};
use shared::log::Format;

use crate::{child::spec::Spec, home::Home, update::state::UpdatePolicy};

/// All that `run` goes by, checked and complete. It travels with each job to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    /// Also the name of its lock, its log and its folder.
    pub(crate) child_name: String,
    pub(crate) home: Home,
    pub(crate) child: Spec,
    pub(crate) stop_timeout: Duration,
    pub(crate) policy: UpdatePolicy,
    /// When the child may be replaced.
    pub(crate) window: Option<Window>,
    pub(crate) repo: PathBuf,
    pub(crate) source: Source,
    pub(crate) build: BuildConfig,
    /// Number of releases to keep.
    pub(crate) keep_releases: usize,
    pub(crate) log: LogConfig,
    pub(crate) hooks: Hooks,
    /// Addresses and commands to be told of updates.
    pub(crate) notify: Vec<String>,
    /// Who keeps the supervisor itself running, where that is known.
    pub(crate) manager: Option<Manager>,
    pub(crate) metrics_addr: Option<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// Commits of a branch, built here.
    Git(GitSource),
    Releases(ReleaseSource),
}

/// Which branch is followed, and how far it is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GitSource {
    /// Name or address of the remote; the upstream's when absent.
    pub(crate) remote: Option<String>,
    pub(crate) branch: Option<String>,
    /// A revision to stay at.
    pub(crate) pin: Option<String>,
    /// Keys to log in with, where the agent has none that fits.
    pub(crate) ssh_keys: Vec<PathBuf>,
    /// An allowed-signers file, if signatures are required.
    pub(crate) signers: Option<PathBuf>,
    /// Whether every new commit must be signed, not only the newest.
    pub(crate) every_commit: bool,
    /// Whether a rewritten branch is followed.
    pub(crate) follow_rewrites: bool,
}

/// Where releases are listed and who signs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReleaseSource {
    /// `OWNER/NAME` of the repository whose releases they are.
    pub(crate) repository: String,
    /// Base of another API than GitHub's, for mirrors.
    pub(crate) api: Option<String>,
    /// Public keys (32 bytes, as zipsign writes them).
    pub(crate) keys: Vec<PathBuf>,
    /// How many of them must have signed the list of releases.
    pub(crate) threshold: usize,
    /// A version to stay at.
    pub(crate) pin: Option<String>,
    /// Whether to go to versions that semver calls incompatible.
    pub(crate) allow_incompatible: bool,
}

/// How a version is built and tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BuildConfig {
    /// The programs of a build; the first is the child.
    pub(crate) bins: Vec<String>,
    pub(crate) profile: String,
    pub(crate) features: Vec<String>,
    pub(crate) target_dir: PathBuf,
    /// Arguments that make the child check its configuration; empty for no such check, nothing for
    /// the usual one where the program is of our kind.
    pub(crate) check: Option<Vec<String>>,
    pub(crate) sandbox: BuildSandbox,
    /// Variables that builds and smoke tests get besides the usual ones.
    pub(crate) environment: Vec<String>,
    /// What builds may read and write besides the usual folders.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) fetch_timeout: Duration,
    pub(crate) build_timeout: Duration,
    /// Free disk space a build needs, in bytes.
    pub(crate) min_disk: u64,
    /// Free memory a build needs, in bytes.
    pub(crate) min_memory: u64,
}

/// How much is kept from the code that a build runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BuildSandbox {
    /// Files, other processes and, once everything is fetched, the network
    Full,
    /// Files and other processes, not the network
    Files,
    /// Nothing but the environment
    Off,
}

impl BuildConfig {
    /// Whether builds have the network throughout.
    pub(crate) fn keeps_network(&self) -> bool {
        self.sandbox != BuildSandbox::Full
    }
}

/// What keeps the supervisor itself running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Manager {
    Pm2,
    Systemd,
}

impl std::fmt::Display for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pm2 => "pm2",
            Self::Systemd => "systemd",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogConfig {
    pub(crate) dir: PathBuf,
    /// Size at which the child's log is rotated, in bytes.
    pub(crate) max_bytes: u64,
    /// Number of rotated files to keep.
    pub(crate) keep: u32,
    /// Whether the child's output is passed through.
    pub(crate) echo: bool,
    /// Which of our own messages are logged.
    pub(crate) filter: String,
    /// Whether they are JSON.
    pub(crate) json: bool,
}

/// Commands run at certain moments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hooks {
    /// Before a switch; may refuse.
    pub(crate) pre_update: Option<String>,
    /// After an update was accepted.
    pub(crate) post_update: Option<String>,
    /// After one was refused, failed, or rolled back.
    pub(crate) on_failure: Option<String>,
}

impl LogConfig {
    /// Starts logging our own messages, to standard error.
    pub(crate) fn start(&self) {
        let format = if self.json {
            Format::Json
        } else {
            Format::Text
        };
        shared::log::init(&self.filter, format);
    }
}

impl Config {
    /// The output of the child.
    pub(crate) fn child_log(&self) -> PathBuf {
        self.log.dir.join(format!("{}.log", self.child_name))
    }

    /// The output of the last build.
    pub(crate) fn build_log(&self) -> PathBuf {
        self.log.dir.join(format!("{}-build.log", self.child_name))
    }
}

/// Reads a time span such as `15m`, `1h 30m` or `500ms`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let wrong = || format!("{text:?} is not a time span such as 30s, 15m or 2h");
    let span = SignedDuration::from_str(text).map_err(|_| wrong())?;
    let span = Duration::try_from(span).map_err(|_| wrong())?;
    let most = Duration::from_hours(24 * 366);
    if span > most {
        Err("longer than a year".to_owned())
    } else {
        Ok(span)
    }
}

/// Reads a size such as `512M`, `2.5G` or a number of bytes; steps are 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches("ib").trim_end_matches('b');
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let unit = units.iter().find(|(letter, _)| number.ends_with(*letter));
    let shift = unit.map_or(0, |(_, shift)| *shift);
    let digits = unit.map_or(number, |(letter, _)| number.trim_end_matches(*letter));
    let wrong = || format!("{text:?} is not a size such as 512M or 2G");
    let value: f64 = digits.trim().parse().map_err(|_| wrong())?;
    if !(0.0..=1e15).contains(&value) {
        return Err(wrong());
    }
    Ok((value * f64::from(2.0_f32).powi(shift)) as u64)
}

/// A daily span of local time, such as `02:00-05:00`; it may cross midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    from: civil::Time,
    to: civil::Time,
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a window such as 02:00-05:00");
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| civil::Time::strptime("%H:%M", text.trim()).map_err(|_| wrong());
        Ok(Self {
            from: time(from)?,
            to: time(to)?,
        })
    }
}

impl Window {
    /// Returns how long until the window opens; zero inside it.
    pub(crate) fn opens_in(&self, now: civil::Time) -> Duration {
        let inside = if self.from <= self.to {
            now >= self.from && now < self.to
        } else {
            now >= self.from || now < self.to
        };
        if inside {
            return Duration::ZERO;
        }
        let wait = now.duration_until(self.from);
        let day = SignedDuration::from_hours(24);
        let wait = if wait.is_negative() { wait + day } else { wait };
        Duration::try_from(wait).unwrap_or_default()
    }
}

/// Derives a delay below `most` from names, so that nodes with different names do not act at once
/// and one node always waits the same.
pub(crate) fn spread(most: Duration, names: &[&str]) -> Duration {
    // FNV-1a with a final mix: any even spread will do.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in names.iter().flat_map(|name| name.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        hash = (hash ^ (hash >> 30)).wrapping_mul(multiplier);
    }
    most.mul_f64((hash >> 11) as f64 / (1_u64 << 53) as f64)
}

/// Splits words at blanks; quotes keep words together.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (None, _) if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Renders arguments as one would type them.
pub(crate) fn shown(args: &[OsString]) -> String {
    let shown = args.iter().map(|arg| {
        let arg = arg.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) {
            arg.into_owned()
        } else {
            format!("'{}'", arg.replace('\'', "'\\''"))
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration that keeps its state in a folder.
    pub(crate) fn config(dir: &std::path::Path) -> Config {
        let home = Home::of(&dir.join("state"), "app");
        let log = LogConfig {
            dir: home.logs(),
            max_bytes: 1 << 20,
            keep: 1,
            echo: false,
            filter: "info".into(),
            json: false,
        };
        let build = BuildConfig {
            bins: vec!["app".into()],
            profile: "dev".into(),
            features: Vec::new(),
            target_dir: home.target(),
            check: None,
            sandbox: BuildSandbox::Full,
            environment: Vec::new(),
            paths: Vec::new(),
            fetch_timeout: Duration::from_mins(1),
            build_timeout: Duration::from_mins(1),
            min_disk: 0,
            min_memory: 0,
        };
        Config {
            child_name: "app".into(),
            child: Spec {
                program: "app".into(),
                args: Vec::new(),
                cwd: dir.to_owned(),
                nice: 0,
                watchdog: Duration::ZERO,
                memory_max: None,
            },
            stop_timeout: Duration::from_secs(1),
            policy: UpdatePolicy {
                interval: Duration::from_mins(15),
                jitter: Duration::ZERO,
                hold_off: Duration::ZERO,
                ready_timeout: Duration::from_mins(5),
                probation: Duration::from_mins(5),
                max_wait: Duration::from_mins(30),
                updates: true,
            },
            window: None,
            repo: dir.join("checkout"),
            source: Source::Git(GitSource {
                remote: None,
                branch: None,
                pin: None,
                ssh_keys: Vec::new(),
                signers: None,
                every_commit: false,
                follow_rewrites: true,
            }),
            build,
            keep_releases: 3,
            log,
            hooks: Hooks::default(),
            notify: Vec::new(),
            manager: None,
            metrics_addr: None,
            home,
        }
    }

    #[test]
    fn spans_and_sizes() {
        assert_eq!(duration("15m"), Ok(Duration::from_mins(15)));
        assert_eq!(duration("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["-1s", "soon", "", "9000h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("2.5GiB"), Ok(5 << 29));
        assert_eq!(bytes("0"), Ok(0));
        assert!(bytes("lots").is_err());
    }

    #[test]
    fn a_window_may_cross_midnight() {
        let at = |hour, minute| civil::time(hour, minute, 0, 0);
        let night: Window = "22:00-05:00".parse().unwrap();
        assert_eq!(night.opens_in(at(23, 0)), Duration::ZERO);
        assert_eq!(night.opens_in(at(4, 59)), Duration::ZERO);
        assert_eq!(night.opens_in(at(21, 30)), Duration::from_mins(30));
        let morning: Window = "02:00-05:00".parse().unwrap();
        assert_eq!(morning.opens_in(at(5, 0)), Duration::from_hours(21));
        assert!("2-5".parse::<Window>().is_err());
    }

    #[test]
    fn nodes_spread_over_the_hold_off() {
        let most = Duration::from_secs(100);
        let waits: Vec<_> = (0..50)
            .map(|n| spread(most, &["vali", &n.to_string()]))
            .collect();
        assert!(waits.iter().all(|wait| *wait < most));
        let early = waits.iter().filter(|wait| **wait < most / 2).count();
        assert!((10..40).contains(&early), "{early} of 50 in the first half");
        assert_eq!(spread(most, &["a", "b"]), spread(most, &["a", "b"]));
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(
            words("check --config-only 'a b' c\"d e\""),
            ["check", "--config-only", "a b", "cd e"]
        );
        assert_eq!(
            shown(&["--name".into(), "it's".into()]),
            r"--name 'it'\''s'"
        );
    }
}
