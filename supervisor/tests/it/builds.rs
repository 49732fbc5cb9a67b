//! What a build is, is made of, and may do.

use std::{ffi::OsStr, fs, net::TcpListener, path::Path};

use nix::{
    libc,
    sys::signal::{Signal, kill},
};
use supervisor::control::Request;

use crate::workbench::{Bench, kernel, write};

#[test]
fn other_features_are_built_and_not_the_program_of_the_last_try() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&[]);
    let manifest = fs::read_to_string(bench.work().join("Cargo.toml")).unwrap();
    bench.write(
        "Cargo.toml",
        &format!("{manifest}\n[features]\nfixed = []\n"),
    );
    bench.write(
        "src/behavior.rs",
        "pub const VERSION: &str = \"two\";\n\
         pub const BEHAVIOR: &str = if cfg!(feature = \"fixed\") { \"\" } else { \"crash\" };\n",
    );
    let two = bench.commit("two");
    bench.push();
    let report = bench.update();
    assert!(report.update.quarantine.contains_key(&two), "{report:#?}");
    running.crash();
    let _running = bench.start(&["--features", "fixed", "--hold-off", "0"]);
    bench.until("it is accepted", |report| {
        let accepted = report.update.accepted.as_ref();
        report.update.phase == "idle" && accepted.is_some_and(|version| version.commit == two)
    });
    bench.assert_runs(&["one", "two", "one", "two"]);
}

#[test]
fn a_program_that_knows_no_version_runs_without_being_asked_for_it() {
    let bench = Bench::new();
    let main = fs::read_to_string(bench.work().join("src/main.rs")).unwrap();
    let (head, rest) = main.split_once("fn main() {").unwrap();
    let (_, rest) = rest.split_once("let home =").unwrap();
    // It takes `--version` and `check` for arguments of its own.
    let args = "let args: Vec<String> = env::args().skip(1).collect();";
    bench.write(
        "src/main.rs",
        &format!("{head}fn main() {{\n    {args}\n    let home ={rest}"),
    );
    bench.commit("plain");
    bench.push();
    bench.git_checkout(&["pull", "-q"]);
    let _running = bench.start_and_settle(&[]);
    bench.assert_runs(&["one"]);
}

#[test]
fn cargo_may_write_the_build_directory_that_the_operator_names() {
    let bench = Bench::new();
    let parts = Path::new(&bench.build_folder()).join("parts");
    let named = [("CARGO_BUILD_BUILD_DIR", parts.as_os_str())];
    let _running = bench.start_in(&named, &[]);
    assert!(bench.settled().child.pid.is_some());
    assert!(fs::read_dir(parts).unwrap().next().is_some());
}

#[test]
fn a_supervisor_that_its_own_child_started_ends_no_build_with_the_child() {
    let bench = Bench::new();
    let folder = bench.build_folder();
    let [gate, reached] = ["gate", "reached"].map(|name| Path::new(&folder).join(name));
    // What a child bears, and hands on to what it starts.
    let marks = [
        ("SUPERVISOR_HOME", bench.home.path().as_os_str()),
        ("SUPERVISOR_CHILD_PID", OsStr::new("1")),
    ];
    let _running = bench.start_in(&marks, &["--build-path", &folder]);
    let pid = bench.settled().child.pid.unwrap();
    bench.write(
        "build.rs",
        &format!(
            "fn main() {{\n    std::fs::write({reached:?}, \"\").unwrap();\n    \
             while !std::path::Path::new({gate:?}).exists() {{\n        \
             std::thread::sleep(std::time::Duration::from_millis(10));\n    }}\n}}\n"
        ),
    );
    let two = bench.release("two", "");
    let update = Request::Update {
        force: false,
        local: false,
    };
    bench.ask(&update).unwrap();
    bench.wait("the build is under way", || reached.exists().then_some(()));
    let child = nix::unistd::Pid::from_raw(pid.cast_signed());
    kill(child, Signal::SIGKILL).unwrap();
    let report = bench.until("another child runs", |report| {
        report.child.state == "running" && report.child.pid != Some(pid)
    });
    assert_eq!(report.update.phase, "building");
    write(&gate, "open");
    assert_eq!(bench.settled().update.accepted.unwrap().commit, two);
    bench.assert_runs(&["one", "one", "two"]);
}

/// A build script that tries what it must not, and warns of all it got.
const THIEF: &str = r#"
use std::{env, fs, net::TcpStream, process::Command};

fn main() {
    let mut got = Vec::new();
    for name in ["HF_TOKEN", "WANDB_API_KEY", "SSH_AUTH_SOCK", "CARGO_REGISTRY_TOKEN"] {
        got.extend(env::var_os(name).map(|_| name.to_owned()));
    }
    for path in FILES {
        // Where there is no wall before it, nothing is in it.
        let text = fs::read(path).unwrap_or_default();
        let mut entries = fs::read_dir(path).into_iter().flatten();
        got.extend((!text.is_empty() || entries.next().is_some()).then(|| path.to_string()));
    }
    let processes = fs::read_dir("/proc").unwrap().flatten();
    for process in processes {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        if environment.windows(8).any(|at| at == b"HF_TOKEN") {
            got.push(format!("environment of {:?}", process.path()));
        }
    }
    got.extend(TcpStream::connect(SERVER).ok().map(|_| "the network".to_owned()));
    for path in OUTSIDE {
        got.extend(fs::write(path, "").ok().map(|_| format!("wrote {path}")));
    }
    let kill = Command::new("sh").args(["-c", &format!("kill -0 {CHILD}")]).status();
    got.extend(kill.is_ok_and(|kill| kill.success()).then(|| "a signal".to_owned()));
    // What a build is for.
    let out = env::var("OUT_DIR").unwrap();
    fs::write(format!("{out}/made.rs"), fs::read("src/main.rs").unwrap()).unwrap();
    fs::write(env::temp_dir().join("scratch"), "").unwrap();
    assert_eq!(fs::read_dir(env::var("HOME").unwrap()).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(SEEN).unwrap(), "nobody hides it");
    println!("cargo:warning=the thief got {got:?}");
}
"#;

#[test]
fn a_build_script_gets_no_secret_and_reaches_nobody() {
    let (bench, got) = the_thief_got(|| {});
    if bench.supervisor_log().contains("does not stand") {
        return e2e::skip("this kernel lacks landlock, seccomp or namespaces");
    }
    assert_eq!(got, "[]");
}

/// Landlock is a kernel's to have, and systems switch it off.
#[test]
fn a_build_script_gets_no_secret_without_landlock() {
    let (bench, got) = the_thief_got(|| kernel::no_calls(&[libc::SYS_landlock_create_ruleset]));
    let log = bench.supervisor_log();
    assert!(log.contains("this kernel has no landlock"), "{log}");
    if log.contains("wall=\"namespaces\"") {
        return e2e::skip("this system allows no namespaces");
    }
    // What no other wall is for: files elsewhere that this user may write.
    let outside = format!("wrote {}", bench.path().join("outside").display());
    assert_eq!(got, format!("{:?}", [outside]));
}

#[test]
fn a_build_script_gets_no_secret_without_namespaces() {
    let (bench, got) = the_thief_got(|| kernel::no_calls(&[libc::SYS_unshare]));
    let log = bench.supervisor_log();
    assert!(log.contains("wall=\"namespaces\""), "{log}");
    if log.contains("wall=\"files\"") {
        return e2e::skip("this kernel has no landlock");
    }
    assert_eq!(got, "[]");
}

/// Lets a build script steal, under a supervisor whose kernel lacks something.
fn the_thief_got(give_up: impl FnOnce() + Send) -> (Bench, String) {
    let bench = Bench::new();
    let home = bench.path().join("home");
    let files = [
        ".ssh/id_ed25519",
        ".bittensor/wallets/default/hotkeys/default",
        ".cache/huggingface/token",
        ".netrc",
    ]
    .map(|name| home.join(name));
    let wallet = bench.path().join("elsewhere/wallets/hotkey");
    let token = bench.path().join("elsewhere/token");
    for file in files.iter().chain([&wallet, &token]) {
        write(file, "a secret");
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let real = std::env::home_dir().unwrap();
    let (cargo, rustup) = (real.join(".cargo"), real.join(".rustup"));
    let environment = [
        ("HOME", home.as_os_str()),
        ("CARGO_HOME", cargo.as_os_str()),
        ("RUSTUP_HOME", rustup.as_os_str()),
        ("HF_TOKEN", OsStr::new("hf_secret")),
        ("HF_TOKEN_PATH", token.as_os_str()),
        ("WANDB_API_KEY", OsStr::new("secret")),
        ("SSH_AUTH_SOCK", OsStr::new("/tmp/agent")),
        ("CARGO_REGISTRY_TOKEN", OsStr::new("secret")),
    ];
    let wallets = bench.path().join("elsewhere/wallets").display().to_string();
    let flags = ["--", "--wallet.path", &wallets];
    let seen = bench.path().join("seen");
    write(&seen, "nobody hides it");
    let seen = seen.display().to_string();
    let running = bench.start_after(give_up, &environment, &flags);
    let child = bench.settled().child.pid.unwrap();
    let mut secrets: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    secrets.extend(
        [&home, &wallet, &token, &bench.home.journal()].map(|path| path.display().to_string()),
    );
    secrets.push(bench.checkout().join(".git/config").display().to_string());
    let outside = [
        bench.path().join("outside"),
        bench.home.source().join("outside"),
        cargo.join("bin/outside"),
        rustup.join("outside"),
    ];
    let outside: Vec<String> = outside
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let known = format!(
        "const FILES: &[&str] = &{secrets:?};\nconst OUTSIDE: &[&str] = &{outside:?};\n\
         const SERVER: &str = {:?};\nconst CHILD: u32 = {child};\nconst SEEN: &str = {seen:?};\n",
        server.local_addr().unwrap().to_string()
    );
    bench.write("build.rs", &format!("{THIEF}{known}"));
    let two = bench.release("two", "");
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().commit, two);
    drop(running);
    let log = fs::read_to_string(bench.home.path().join("logs/app-build.log")).unwrap();
    assert!(log.contains("the thief got "), "{log}");
    let mut said = log
        .lines()
        .filter_map(|line| line.split_once("the thief got "));
    (bench, said.next().unwrap().1.to_owned())
}
