//! The supervisor replaces itself; its child does not notice. One that can't start is given up.

use std::fs;

use crate::workbench::{Bench, Running};
use supervisor::self_update::Boot;

/// Makes the repository yield a program called `supervisor`: it names its commit and then becomes
/// the real one, which can't be built here, or does what `otherwise` says.
pub(crate) fn yield_supervisor(bench: &Bench, otherwise: &str) {
    let becomes = format!(
        "use std::os::unix::process::CommandExt;\n\
         fn become_real() {{\n    \
             let error = std::process::Command::new({:?}).args(std::env::args_os().skip(1)).exec();\n    \
             panic!(\"{{error}}\");\n\
         }}\n",
        env!("CARGO_BIN_EXE_supervisor")
    );
    let main = format!(
        "{becomes}\nfn main() {{\n    if std::env::args().nth(1).as_deref() == Some(\"--version\") {{\n        \
             println!(\"supervisor ({{}})\", env!(\"BUILD_COMMIT\"));\n    }} else {{\n        \
             {otherwise}\n    }}\n}}\n"
    );
    bench.write("src/bin/supervisor.rs", &main);
}

const FLAGS: [&str; 2] = ["--bins", "app,supervisor"];

/// What the kernel says the supervisor's arguments are; the wrapper passes them on.
fn image(running: &Running<'_>) -> String {
    fs::read_link(format!("/proc/{}/exe", running.pid()))
        .unwrap()
        .display()
        .to_string()
}

#[test]
fn a_new_supervisor_takes_over_and_the_child_runs_on() {
    let bench = Bench::new();
    yield_supervisor(&bench, "become_real();");
    bench.release("one", "");
    bench.git_checkout(&["pull", "-q"]);
    let running = bench.start_and_settle(&FLAGS);
    bench.wait("the first release's supervisor took over", || {
        bench
            .supervisor_log()
            .contains("becoming the new supervisor")
            .then_some(())
    });
    let report = bench.settled();
    let pid = report.child.pid;
    // A change of the supervisor alone still restarts the child: they are one release. What must
    // not cost a restart is the hand-over itself.
    bench.release("two", "");
    bench.update();
    bench.wait("the second one took over", || {
        (bench
            .supervisor_log()
            .matches("becoming the new supervisor")
            .count()
            == 2)
            .then_some(())
    });
    let report = bench.settled();
    assert_ne!(report.child.pid, pid);
    assert_eq!(report.supervisor.unwrap().pid, running.pid());
    bench.assert_runs(&["one", "two"]);
    assert_eq!(bench.children().len(), 1);
    assert!(!bench.home.boot().exists(), "it has arrived");
    assert!(image(&running).ends_with("/supervisor"));
    // It listens to the same child: its end is noticed and its output arrives.
    let pid = report.child.pid.unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    bench.until("the child was restarted", |report| {
        report.child.restarts == 1 && report.child.state == "running"
    });
}

#[test]
fn a_supervisor_that_does_not_start_is_given_up() {
    let bench = Bench::new();
    yield_supervisor(&bench, "become_real();");
    bench.release("one", "");
    bench.git_checkout(&["pull", "-q"]);
    let running = bench.start_and_settle(&FLAGS);
    yield_supervisor(&bench, "let _ = become_real; std::process::exit(9);");
    let worse = bench.release("worse", "");
    let report = bench.update();
    assert!(
        report.update.quarantine[&worse].contains("can't take over"),
        "{report:#?}"
    );
    // One that passes every test and fails all the same.
    let sly = "if std::env::args().nth(1).as_deref() == Some(\"doctor\") { become_real() } \
               else { std::process::exit(9) }";
    yield_supervisor(&bench, sly);
    let bad = bench.release("two", "");
    bench
        .ask(&supervisor::control::Request::Update {
            force: false,
            local: false,
        })
        .unwrap();
    // It dies with the new image; what pm2 or systemd would do now is start it again.
    assert_eq!(running.ended().code(), Some(9));
    assert_eq!(bench.children().len(), 1, "the child runs on");
    for _ in 0..2 {
        assert_eq!(bench.run(&FLAGS).status.code(), Some(9));
    }
    let _running = bench.start(&FLAGS);
    let report = bench.settled();
    assert_eq!(report.update.accepted.unwrap().commit, bad);
    assert!(Boot::read(&bench.home).given_up(&bad));
    bench.assert_runs(&["one", "two"]);
}
