//! Carrying out what the machine decides.

use std::{collections::VecDeque, io, path::Path, time::Duration};

use shared::{causes::one_line, notices::Notice};

use super::{
    Supervisor,
    machine::{Effect, Event, World},
    workers::Purpose,
};
use crate::{
    child::{control, group::ChildGroup, health, launch::Launcher, log::Pipe, state::ChildEvent},
    config::{Manager, Source},
    control::{PendingRequest, Reply, Request},
    error::{Blame, Fault},
    history,
    job::{Answer, Job, Line, Poll, Reach, Task},
    trouble::Trouble,
    update::{
        journal,
        release::Release,
        state::{Note, Phase, Polled, Step, UpdateEvent, Urgency, Version},
    },
};

/// Smoke tests, hooks, links and messages take no longer than this.
const SHORT_STEP: Duration = Duration::from_mins(10);

impl Supervisor {
    /// Lets the machine decide about an event, and carries out what it says.
    pub(super) fn take(&mut self, event: impl Into<Event>) {
        let mut events = VecDeque::from([event.into()]);
        while let Some(event) = events.pop_front() {
            let phase = self.machine.update().phase.name();
            let world = self.observe();
            for effect in self.machine.take(event, &world) {
                events.extend(self.perform(effect));
            }
            let now = self.machine.update().phase.name();
            if now != phase {
                tracing::debug!(from = phase, to = now, "update");
            }
        }
    }

    fn observe(&self) -> World {
        let child = self.machine.child().running();
        let status =
            child.and_then(|child| health::read_status(&self.config.home.status(), child.pid));
        let window_in = self.config.window.map_or(Duration::ZERO, |window| {
            window.opens_in(
                jiff::Zoned::new(shared::clock::now(), jiff::tz::TimeZone::system()).time(),
            )
        });
        World {
            at: self.now(),
            draw: rand::random_range(0..=1000),
            window_in,
            unsafe_because: status
                .as_ref()
                .filter(|status| !status.restart.safe)
                .map(|status| status.restart.reason.clone()),
            health: status.as_ref().map(|status| status.health),
            speaks: self.notified.speaks,
        }
    }

    /// Carries out an effect; returns the answer if there is one at once.
    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Journal(state) => {
                let written = journal::write(&self.config.home.journal(), &state);
                Some(Event::Journaled(written.map_err(|error| {
                    tracing::error!(%error, "could not write the journal: the update stands still");
                    one_line(&error)
                })))
            }
            Effect::Start(step) => self.start_step(step),
            Effect::Record(note) => {
                self.record(note);
                None
            }
            Effect::Spawn(release) => Some(self.spawn(&release).into()),
            Effect::Terminate(pid) => {
                let child = self.machine.child();
                if !child.halted
                    && let Some(release) = child.want.clone()
                {
                    self.prepare_successor(&release);
                }
                control::terminate(pid);
                None
            }
            Effect::KillGroup(group) => {
                control::kill_group(group);
                self.kill_all();
                None
            }
        }
    }

    fn start_step(&mut self, step: Step) -> Option<Event> {
        let build = &self.config.build;
        let (purpose, task, limit) = match step {
            Step::Poll { forced, local } => {
                let poll = self.poll(forced, local);
                (Purpose::Poll, Task::Poll(poll), build.fetch_timeout)
            }
            Step::Build(version) => {
                let (commit, summary) = (&version.commit, &version.summary);
                tracing::info!(commit, summary, "building");
                (Purpose::Build, Task::Build(version), build.build_timeout)
            }
            Step::Test(version) => {
                self.progress = Some("smoke test".into());
                let own_args = std::env::args_os().skip(1).collect();
                let task = Task::Test { version, own_args };
                (Purpose::Test, task, SHORT_STEP)
            }
            Step::Switch(to) => {
                self.prepare_successor(&to.release);
                (Purpose::Switch, self.switch(to), SHORT_STEP)
            }
            Step::Accept(version) => (Purpose::Accept, Task::Accept(version), SHORT_STEP),
        };
        self.start(purpose, task, limit)
    }

    fn poll(&self, forced: bool, local: bool) -> Poll {
        let update = self.machine.update();
        Poll {
            accepted: update.accepted.clone(),
            trusted: match self.config.source {
                Source::Git(_) => update.trusted.clone(),
                // Where the two were not yet told apart.
                Source::Releases(_) => update.trusted_release.clone().or(update.trusted.clone()),
            },
            upstream: update.upstream.clone(),
            requested: update.requested.clone(),
            forced,
            local,
            // A remote that hangs must not keep the first version from running.
            reach: if update.failures > 0 {
                Reach::Checkout
            } else {
                Reach::Remote
            },
        }
    }

    fn switch(&self, to: Version) -> Task {
        let update = self.machine.update();
        let rolling_back = update.phase == Phase::RollingBack;
        let previous = if rolling_back {
            &update.previous
        } else {
            &update.accepted
        };
        Task::Switch {
            to,
            previous: previous.as_ref().map(|version| version.release.clone()),
            ask_hook: !rolling_back,
        }
    }

    fn record(&mut self, note: Note) {
        tracing::info!(result = ?note.result, commit = note.commit, reason = note.reason, "update");
        if let Err(error) = history::add(&self.config.home.history(), &note) {
            tracing::warn!(%error, "could not write the history");
        }
        if !self.config.notify.is_empty() || self.config.hooks.on_failure.is_some() {
            self.start(Purpose::Notify, Task::Notify(note), SHORT_STEP);
        }
    }

    pub(super) fn call(&mut self, notice: Notice<Trouble>) {
        self.start(Purpose::Notify, Task::Call(notice), SHORT_STEP);
    }

    /// Starts a worker; returns an answer at once only if that fails.
    fn start(&mut self, purpose: Purpose, task: Task, limit: Duration) -> Option<Event> {
        let config = self.config.clone();
        let job = Job { config, task };
        let started = self.workers.start(purpose, &job, limit, &mut self.tasks);
        let error = started.err()?;
        let text = format!("could not start a worker: {error}");
        self.ended(purpose, Err(Fault::new(Blame::Machine, text)))
    }

    pub(super) fn line(&mut self, tag: u64, line: Line) {
        match line {
            Line::Progress(text) => {
                // The first build takes minutes, with somebody in front of it.
                if self.machine.update().accepted.is_none() {
                    self.log.echo(format!("{text}\n").as_bytes());
                }
                self.progress = Some(text);
            }
            Line::Ended(answer) => {
                if let Some(purpose) = self.workers.ended(tag)
                    && let Some(event) = self.ended(purpose, answer)
                {
                    self.take(event);
                }
            }
        }
    }

    /// What the machine is told of the end of a step.
    fn ended(&mut self, purpose: Purpose, answer: Result<Answer, Fault>) -> Option<Event> {
        if purpose == Purpose::Check {
            self.checked(answer);
            return None;
        }
        self.progress = None;
        if let Err(fault) = &answer {
            tracing::warn!(?purpose, %fault, "a step of the update failed");
        }
        if self.machine.child().halted {
            return None;
        }
        let done = answer.as_ref().map(|_| ()).map_err(Clone::clone);
        let event = match purpose {
            Purpose::Poll => {
                let (upstream, found) = match answer {
                    Ok(Answer::Polled { upstream, found }) => (Some(upstream), found),
                    Ok(Answer::Done) => {
                        let text = "the worker answered nothing";
                        (None, Err(Fault::new(Blame::Machine, text)))
                    }
                    Err(fault) => (None, Err(fault)),
                };
                match &found {
                    Ok(_) => self.polled_at = Some(shared::clock::now()),
                    Err(fault) => tracing::warn!(%fault, "the poll failed"),
                }
                UpdateEvent::Polled { upstream, found }
            }
            Purpose::Build => UpdateEvent::Built(done),
            Purpose::Test => UpdateEvent::Tested(done),
            Purpose::Switch => {
                self.launcher = self.launcher.take().filter(|_| done.is_ok());
                UpdateEvent::Switched(done)
            }
            Purpose::Accept => {
                self.successor = self.find_successor();
                UpdateEvent::Tidied
            }
            Purpose::Notify | Purpose::Check => return None,
        };
        Some(event.into())
    }

    /// Kills whatever a child has left, wherever it went.
    pub(super) fn kill_all(&self) {
        if let Ok(group) = &self.group {
            group.kill();
        }
        control::kill_all(&self.config.home);
    }

    fn spawn(&mut self, release: &str) -> ChildEvent {
        self.notified = health::Notified::default();
        let home = &self.config.home;
        // A pipe whose other end was removed by mistake would swallow the output.
        if !home.output().exists()
            && let Ok(pipe) = Pipe::open(&home.output())
        {
            self.pipe = pipe;
            self.launcher = None;
        }
        let _ = std::fs::remove_file(home.status());
        if !Release::is_there(home, release) {
            return ChildEvent::SpawnFailed {
                how: format!("could not be started: release {release} is not there"),
                lost: true,
            };
        }
        let prepared = self.launcher.take();
        let prepared = prepared.filter(|launcher| launcher.release() == release);
        // One that was killed while it waited says nothing about the release.
        let launched = prepared.and_then(|launcher| self.launch(launcher).ok());
        let started = launched.map_or_else(
            || {
                let launcher = self.prepare(release);
                launcher.and_then(|launcher| self.launch(launcher))
            },
            Ok,
        );
        match started {
            Ok(pid) => {
                tracing::info!(pid, release, "started the child");
                ChildEvent::Spawned(pid)
            }
            Err(error) => ChildEvent::SpawnFailed {
                how: format!("could not be started: {error}"),
                lost: false,
            },
        }
    }

    /// Lets a process become the child, in a group that nothing was killed in. Nothing of it is left if that fails.
    fn launch(&self, launcher: Launcher) -> io::Result<u32> {
        let group = self.group.as_ref().ok().filter(|group| {
            let made = group.renew().inspect_err(|error| {
                tracing::warn!(%error, "no control group for the child");
            });
            made.is_ok()
        });
        let launched = launcher.launch(group.map(ChildGroup::path));
        launched.inspect_err(|_| self.kill_all())
    }

    /// Has the next child ready to start when the last one has ended. Best effort: without, it is prepared then.
    fn prepare_successor(&mut self, release: &str) {
        let prepared = self.launcher.take();
        let prepared = prepared.filter(|launcher| launcher.release() == release);
        self.launcher = prepared.or_else(|| self.prepare(release).ok());
    }

    fn prepare(&self, release: &str) -> io::Result<Launcher> {
        let config = &self.config;
        Launcher::start(&config.child, &config.home, release, &self.pipe.writer)
    }

    pub(super) fn request(&mut self, pending: PendingRequest) {
        let reply = match pending.request {
            Request::Check => {
                self.checks.push(pending.reply);
                if self.checks.len() == 1 {
                    let poll = Poll {
                        reach: Reach::Dry,
                        ..self.poll(false, false)
                    };
                    let limit = self.config.build.fetch_timeout;
                    self.start(Purpose::Check, Task::Poll(poll), limit);
                }
                return;
            }
            Request::Status => Reply::Status(Box::new(self.report())),
            Request::Restart => {
                self.take(ChildEvent::Restart);
                Reply::Done("the child is being restarted".into())
            }
            Request::Stop => {
                self.stop();
                // pm2 can't be told to leave alone what has ended well.
                Reply::Done(
                    match self.config.manager {
                        Some(Manager::Pm2) => "stopping; pm2 will start it again: use `pm2 stop`",
                        _ => "stopping",
                    }
                    .into(),
                )
            }
            Request::Update { force, local } => {
                let urgency = if force {
                    Urgency::Forced
                } else {
                    Urgency::Asked
                };
                self.take(UpdateEvent::Ask { urgency, local });
                Reply::Done("looking for an update".into())
            }
            Request::Rollback => self.roll_back(),
        };
        // Whoever asked may have gone.
        let _ = pending.reply.send(reply);
    }

    /// Tells everybody who asked what an update would do.
    fn checked(&mut self, answer: Result<Answer, Fault>) {
        let reply = match answer {
            Ok(Answer::Polled {
                found: Ok(found), ..
            }) => match &found {
                Polled::New(version) | Polled::NoRebuild(version) => {
                    let reason = self.machine.update().quarantine.reason(version);
                    reason.map_or(Reply::Check(found), Reply::Refused)
                }
                Polled::UpToDate => Reply::Check(found),
            },
            Ok(Answer::Polled {
                found: Err(fault), ..
            })
            | Err(fault) => Reply::Refused(fault.to_string()),
            Ok(Answer::Done) => Reply::Refused("the worker answered nothing".into()),
        };
        for asker in self.checks.drain(..) {
            let _ = asker.send(reply.clone());
        }
    }

    fn roll_back(&mut self) -> Reply {
        if self.machine.update().previous.is_none() {
            return Reply::Refused("there is no previous release".into());
        }
        if self.machine.update().phase != Phase::Idle {
            return Reply::Refused("an update is under way; see `supervisor status`".into());
        }
        self.take(UpdateEvent::GoBack);
        Reply::Done("going back to the previous release".into())
    }

    fn find_successor(&self) -> Option<std::path::PathBuf> {
        crate::self_update::successor(&self.config.home, self.identity.as_deref())
    }

    pub(super) fn become_successor(&mut self, program: &Path) {
        self.drain_output();
        tracing::info!(program = %program.display(), "becoming the new supervisor");
        let failure = crate::self_update::become_(program, &self.config.home);
        tracing::error!(%failure, "staying the old supervisor");
    }
}
