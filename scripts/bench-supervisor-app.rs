//! The program that bench-supervisor keeps running: notes when it starts and that it is alive.

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

fn main() {
    match env::args().nth(1).as_deref() {
        Some("--version") => return println!("app ({})", option_env!("BUILD_COMMIT").unwrap_or("")),
        Some("check") => return,
        _ => {}
    }
    note("start");
    if "IDENT" == "bad" {
        std::process::exit(1);
    }
    loop {
        note("alive");
        sleep(Duration::from_millis(5));
    }
}

fn note(what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let mut file = OpenOptions::new().append(true).create(true).open("NOTES").expect("notes");
    writeln!(file, "{what} IDENT {now:.4}").expect("notes");
}
