//! The walls of the worker, probed from within: as root and as a plain user, with all walls and without one each.
//!
//! This program plays three parts: it runs the table, it is the process outside that has secrets, and it is the
//! worker, behind the walls of [`engine::sandbox`]. Nobody else's harness: the worker must have one thread.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test's panic is its verdict, and the parts speak through pipes"
)]

mod tries;

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{PermissionsExt as _, chown},
            net::{SocketAddr, UnixDatagram, UnixListener},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use e2e::limit::output;
use engine::{
    device::DeviceSpec,
    sandbox::{self, Allowed},
};
use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::{dup, geteuid},
};
use shared::process::blocking_command;

use self::tries::{Ended, Outside};

const SECRET: &str = "PROBE_SECRET_TOKEN";

/// A user that owns nothing.
const NOBODY: u32 = 65534;

/// Walls that are left out, one at a time.
const LEFT_OUT: [&str; 7] = [
    "landlock",
    "seccomp",
    "namespaces",
    "capabilities",
    "limits",
    "descriptors",
    "environment",
];

/// What became of each try, in order.
type Found = Vec<(String, Ended)>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("outside") => outside(Path::new(&arguments[2]), &arguments[3]),
        Some("inside") => inside(&arguments),
        _ => table(),
    }
}

/// Runs everything, and compares with the table in the documentation.
fn table() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where a plain user can run it.
    let program = folder.path().join("probe");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let users: &[(&str, Option<u32>)] = if geteuid().is_root() {
        &[("root", None), ("user", Some(NOBODY))]
    } else {
        e2e::skip("the walls of a worker that root runs: this is not root");
        &[("user", None)]
    };
    let mut works = BTreeMap::<(usize, &str), Vec<&str>>::new();
    for &(who, user) in users {
        for without in [""].into_iter().chain(LEFT_OUT) {
            for (index, (_, ended)) in probed(&program, folder.path(), user, without)
                .iter()
                .enumerate()
            {
                if ended.is_none() {
                    works.entry((index, without)).or_default().push(who);
                }
            }
        }
    }
    let names: Vec<&str> = tries::all().iter().map(|attempt| attempt.name).collect();
    let cell = |index, without| match works.get(&(index, without)).map(Vec::as_slice) {
        None => String::new(),
        Some([one]) => (*one).to_owned(),
        Some(_) => "both".to_owned(),
    };
    let row = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let headings = LEFT_OUT.map(|wall| format!("no {wall}"));
    let headings = ["try", "all walls"]
        .map(str::to_owned)
        .into_iter()
        .chain(headings);
    println!("{}", row(headings.collect()));
    println!("|{}", "---|".repeat(2 + LEFT_OUT.len()));
    for (index, name) in names.iter().enumerate() {
        let cells = [""]
            .into_iter()
            .chain(LEFT_OUT)
            .map(|without| cell(index, without));
        println!(
            "{}",
            row([(*name).to_owned()].into_iter().chain(cells).collect())
        );
    }
    let worked: Vec<_> = works
        .keys()
        .filter(|(_, without)| without.is_empty())
        .map(|(index, _)| names[*index])
        .collect();
    assert_eq!(worked, [""; 0], "behind all walls");
    assert!(names.len() >= 60);
    let documented = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/walls.md");
    let documented = fs::read_to_string(documented).unwrap();
    for name in names {
        assert!(
            documented.contains(&format!("| {name} |")),
            "docs/walls.md has no row for {name:?}"
        );
    }
}

/// Has everything tried behind walls, as a user and without a wall.
fn probed(program: &Path, folder: &Path, user: Option<u32>, without: &str) -> Found {
    let place = tempfile::tempdir_in(folder).unwrap();
    chown(place.path(), user, user).unwrap();
    let mut command = blocking_command(program);
    command
        .args([Path::new("outside"), place.path(), Path::new(without)])
        .env(SECRET, "of the validator");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let run = output(&mut command);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "without {without:?}: {said}");
    serde_json::from_slice(&run.stdout).unwrap()
}

/// Has secrets, starts a worker, and looks at what reached it.
fn outside(place: &Path, without: &str) {
    let (home, models) = (place.join("home"), place.join("models"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&models).unwrap();
    let key = home.join("key");
    for path in [&key, &models.join("model")] {
        shared::file::write_atomic_private(path, b"secret").unwrap();
    }
    let held = dup(fs::File::open(&key).unwrap()).unwrap();
    let notify = place.join("notify");
    let name = |kind: &str| format!("probe-{kind}-{}", std::process::id());
    let (datagrams, streams) = (name("datagrams"), name("streams"));
    let of_abstract = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
    let sockets = [
        UnixDatagram::bind(&notify).unwrap(),
        UnixDatagram::bind_addr(&of_abstract(&datagrams)).unwrap(),
    ];
    let _listening = UnixListener::bind_addr(&of_abstract(&streams)).unwrap();
    let outside = Outside {
        process: i32::try_from(std::process::id()).unwrap(),
        key,
        descriptor: held.as_raw_fd(),
        models,
        notify,
        datagrams,
        streams,
        secret: SECRET.to_owned(),
    };
    let limits = || getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let before = limits();
    let mut command = blocking_command(std::env::current_exe().unwrap());
    command
        .args(["inside", &serde_json::to_string(&outside).unwrap(), without])
        .stdin(Stdio::null());
    let run = output(&mut command);
    assert!(
        run.status.success(),
        "{} {}",
        run.status,
        String::from_utf8_lossy(&run.stderr)
    );
    let mut found: Found = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(limits(), before);
    for socket in sockets {
        socket.set_nonblocking(true).unwrap();
        let received = socket.recv(&mut [0; 64]);
        let arrived = !matches!(received, Err(error) if error.kind() == ErrorKind::WouldBlock);
        // What arrived counts, whatever the sender was told.
        if arrived {
            let sent = found.iter_mut().find(|(name, _)| name.starts_with("send "));
            sent.unwrap().1 = None;
        }
    }
    println!("{}", serde_json::to_string(&found).unwrap());
}

/// Raises the walls around itself, and tries everything.
fn inside(arguments: &[String]) {
    let outside: Outside = serde_json::from_str(&arguments[2]).unwrap();
    let without: Vec<String> = arguments[3].split(',').map(str::to_owned).collect();
    let prepared = arguments.len() > 4 || without.iter().any(|wall| wall == "environment");
    if !prepared {
        let error = sandbox::restart(&DeviceSpec::Cpu, None, &[], vec!["prepared".into()]);
        panic!("{error}");
    }
    let allowed = Allowed {
        readable: vec![PathBuf::from(&outside.models)],
        memory: Some(4 << 30),
        no_sandbox: true,
        without: without.clone(),
        ..Allowed::default()
    };
    let walls = sandbox::separate(&allowed);
    let entered = sandbox::enter(walls, &DeviceSpec::Cpu, &allowed);
    for wall in &entered.walls {
        // Control groups belong to the system's services.
        let wanted = !without.contains(&wall.name) && wall.name != "cgroup";
        assert!(!wanted || wall.stands.is_ok(), "{wall:?}");
    }
    let found: Found = tries::all()
        .iter()
        .map(|attempt| (attempt.name.to_owned(), attempt.attempt(&outside)))
        .collect();
    println!("{}", serde_json::to_string(&found).unwrap());
}
