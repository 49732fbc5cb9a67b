//! The other side of a [`Job`]: carries out one step and says how it went.

use std::io::Read;

use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal, killpg},
    },
    unistd::{getpgrp, getppid},
};
use shared::Exit;

use crate::{
    config::Source,
    error::{Blame, Fault},
    job::{Answer, Job, Line, Task, say},
    notify, self_update,
    update::{build, channel, leftovers, release, remote, smoke_test},
};

const MAX_JOB: u64 = 1 << 22;

/// Reads a job from standard input, carries it out and writes its lines to standard output.
pub(crate) fn run(supervisor: u32) -> Exit {
    // Before any thread exists.
    let ends = end_with(supervisor);
    let job = read();
    if let Ok(job) = &job {
        job.config.log.start();
    }
    if let Err(error) = ends {
        tracing::warn!(%error, "a step may outlive its supervisor");
    }
    say(&Line::Ended(job.and_then(|job| carry_out(&job))));
    Exit::Ok
}

fn read() -> Result<Job, Fault> {
    let mut text = Vec::new();
    std::io::stdin().take(MAX_JOB).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|error| Fault::machine(&error))
}

/// Carries out one step. This is the one place that tells the two sources apart.
pub(crate) fn carry_out(job: &Job) -> Result<Answer, Fault> {
    let config = &job.config;
    match (&job.task, &config.source) {
        (Task::Poll(poll), Source::Git(git)) => {
            return Ok(remote::poll(config, git, poll));
        }
        (Task::Poll(poll), Source::Releases(releases)) => {
            return Ok(Answer::Polled {
                // Releases say nothing of the branch, and what is known of it must outlive them.
                upstream: poll.upstream.clone(),
                found: channel::poll(config, releases, poll),
            });
        }
        (Task::Build(version), _) if build::is_installed(config, version) => {}
        (Task::Build(version), Source::Git(git)) => {
            leftovers::bound_target(config)?;
            build::run(config, git, version)?;
        }
        (Task::Build(version), Source::Releases(releases)) => {
            channel::fetch(config, releases, version)?;
        }
        (Task::Test { version, own_args }, _) => smoke_test::run(config, version, own_args)?,
        (
            Task::Switch {
                to,
                previous,
                ask_hook,
            },
            _,
        ) => {
            if *ask_hook && let Some(hook) = &config.hooks.pre_update {
                notify::run_hook(hook, "pre-update", to)?;
            }
            release::switch(&config.home, to, previous.as_deref())?;
        }
        (Task::Accept(version), source) => {
            release::prune(&config.home, &version.release, config.keep_releases)?;
            if let Source::Releases(_) = source {
                self_update::replace_installed(&config.home);
            }
            if let Some(hook) = &config.hooks.post_update {
                notify::run_hook(hook, "post-update", version)?;
            }
        }
        (Task::Notify(note), _) => notify::notify(config, note)?,
        (Task::Call(notice), _) => notify::call(config, notice)?,
    }
    Ok(Answer::Done)
}

/// Takes the whole group down when the supervisor dies, a running build included.
fn end_with(supervisor: u32) -> Result<(), Fault> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    // Before any thread exists, so that all of them leave the signal to the waiting one.
    mask.thread_block()
        .map_err(|errno| Fault::machine(&errno))?;
    std::thread::Builder::new()
        .name("parent-death".into())
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
