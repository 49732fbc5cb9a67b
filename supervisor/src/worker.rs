//! The other side of a [`Job`]: carries out one step and says how it went.

use std::io::{Read, Write};

use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal, killpg},
    },
    unistd::{getpgrp, getppid},
};
use shared::Exit;

use crate::{
    error::{Blame, Fault},
    job::{Answer, Job, Line},
    update::{build, release, remote},
};

const MAX_JOB: u64 = 1 << 22;

/// Reads a job from standard input, carries it out and writes its lines to standard output.
pub fn run(supervisor: u32) -> Exit {
    if let Err(error) = end_with(supervisor) {
        tracing::warn!(%error, "a step may outlive its supervisor");
    }
    say(&Line::Ended(read().and_then(|job| carry_out(&job))));
    Exit::Ok
}

/// Says what is being done.
pub fn progress(text: impl Into<String>) {
    say(&Line::Progress(text.into()));
}

fn say(line: &Line) {
    match serde_json::to_string(line) {
        // A supervisor that has replaced itself meanwhile listens no more.
        Ok(text) => drop(writeln!(std::io::stdout(), "{text}")),
        Err(error) => tracing::error!(%error, "could not write a line"),
    }
}

fn read() -> Result<Job, Fault> {
    let mut text = Vec::new();
    std::io::stdin().take(MAX_JOB).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|error| Fault::machine(&error))
}

fn carry_out(job: &Job) -> Result<Answer, Fault> {
    match job {
        Job::Poll(poll) => remote::poll(poll).map(Answer::Polled),
        Job::Build(job) => build::run(job).map(|()| Answer::Done),
        Job::Test(job) => build::smoke_test(job).map(|()| Answer::Done),
        Job::Switch(job) => release::switch(job).map(|()| Answer::Done),
        Job::Accept(job) => release::accept(job).map(|()| Answer::Done),
        Job::Tell(job) => crate::notify::tell(job).map(|()| Answer::Done),
    }
}

/// Takes the whole group down when the supervisor dies, a running build included.
fn end_with(supervisor: u32) -> Result<(), Fault> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    // Before any thread exists, so that all of them leave the signal to the waiting one.
    mask.thread_block()
        .map_err(|errno| Fault::machine(&errno))?;
    std::thread::Builder::new()
        .name("leash".into())
        .spawn(move || {
            if mask.wait().is_ok() {
                let _ = killpg(getpgrp(), Signal::SIGKILL);
            }
        })?;
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(|errno| Fault::machine(&errno))?;
    if getppid().as_raw().unsigned_abs() != supervisor {
        return Err(Fault::new(Blame::Machine, "the supervisor is gone"));
    }
    Ok(())
}
