//! Carrying out what the pure parts decide; the journal is written first.

use std::{path::Path, time::Duration};

use super::{Step, Supervisor};
use crate::{
    child::{control, health, log::Pipe, state as child},
    control::{Command, Order, Reply},
    error::{Blame, Fault, chain},
    history,
    job::{self, Accept, Answer, Build, Job, Line, Poll, Switch, Tell, Test},
    update::{
        release::Release,
        state::{self as update, Effect, Haste, Note, Phase, Version},
    },
};

/// Smoke tests, hooks, links and messages take no longer than this.
const SHORT_STEP: Duration = Duration::from_mins(10);
/// Between attempts to write a journal that can't be written.
const STUCK_RETRY: Duration = Duration::from_secs(30);

impl Supervisor {
    pub(super) fn update_event(&mut self, event: update::Event) {
        let now = self.observe();
        let policy = self.config.policy.clone();
        let (state, effects) = update::step(self.update.clone(), event, &now, &policy);
        if let Err(error) = self.journal.write(&state) {
            tracing::error!(%error, "could not write the journal: the update stands still");
            self.update.problem = Some(chain(&error));
            self.update.due = Some(now.at + STUCK_RETRY);
            self.stuck = true;
            return;
        }
        if state.phase != self.update.phase {
            tracing::debug!(
                from = self.update.phase.name(),
                to = state.phase.name(),
                "update"
            );
        }
        self.update = state;
        for effect in effects {
            self.perform(effect);
        }
    }

    pub(super) fn child_event(&mut self, event: child::Event) {
        let now = self.now();
        for effect in self.child.step(event, now, rand::random_range(0..=1000)) {
            match effect {
                child::Effect::Spawn(release) => self.spawn(&release),
                child::Effect::Terminate(pid) => control::terminate(pid),
                child::Effect::KillGroup(group) => control::kill_group(group),
                child::Effect::Started(release) => {
                    self.update_event(update::Event::ChildStarted(release));
                }
                child::Effect::Ready(release) => {
                    self.update_event(update::Event::ChildReady(release));
                }
                child::Effect::Failed { release, how } => {
                    tracing::warn!(how, "the child failed");
                    self.update_event(update::Event::ChildFailed { release, how });
                }
            }
        }
    }

    fn observe(&self) -> update::Now {
        let status = self
            .child
            .running()
            .and_then(|child| health::read_status(&self.config.home.status(), child.pid));
        let window_in = self.config.window.map_or(Duration::ZERO, |window| {
            window.opens_in(
                jiff::Zoned::new(shared::clock::now(), jiff::tz::TimeZone::system()).time(),
            )
        });
        update::Now {
            at: self.now(),
            window_in,
            unsafe_because: status
                .as_ref()
                .filter(|status| !status.restart.safe)
                .map(|status| status.restart.reason.clone()),
            health: status.as_ref().map(|status| status.health),
            up: self.child.up().map(str::to_owned),
            failing: self.child.failing().map(str::to_owned),
            speaks: self.heard.speaks,
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Poll { forced } => self.poll(Step::Poll, forced),
            Effect::Build(version) => self.build(version),
            Effect::Test(version) => {
                self.progress = Some("smoke test".into());
                let job = Job::Test(Test {
                    home: self.config.home.clone(),
                    version,
                    bins: self.config.source.bins.clone(),
                    check: self.config.source.check.clone(),
                    args: self.config.child.args.clone(),
                    cwd: self.config.child.cwd.clone(),
                    own_args: std::env::args_os().skip(1).collect(),
                });
                self.start(Step::Test, &job, SHORT_STEP);
            }
            Effect::Switch(to) => self.switch(to),
            Effect::Run(release) => self.child_event(child::Event::Want(release)),
            Effect::Accept(version) => {
                let job = Job::Accept(Accept {
                    home: self.config.home.clone(),
                    repo: match self.config.source.downloads {
                        Some(_) => None,
                        None => Some(self.config.source.repo.clone()),
                    },
                    version,
                    keep: self.config.source.keep_releases,
                    hook: self.config.hooks.post_update.clone(),
                });
                self.start(Step::Accept, &job, SHORT_STEP);
            }
            Effect::Record(note) => self.record(note),
        }
    }

    fn poll(&mut self, step: Step, forced: bool) {
        let source = &self.config.source;
        let job = Job::Poll(Poll {
            home: self.config.home.clone(),
            repo: source.repo.clone(),
            remote: source.remote.clone(),
            branch: source.branch.clone(),
            pin: source.pin.clone(),
            accepted: self.update.accepted.clone(),
            trusted: self.update.trusted.clone(),
            follow_rewrites: source.follow_rewrites,
            forced,
            ssh_keys: source.ssh_keys.clone(),
            signers: source.signers.clone(),
            every_commit: source.every_commit,
            downloads: source.downloads.clone(),
            dry: step == Step::Check,
            // A remote that hangs must not keep the first version from running.
            offline: self.update.failures > 0,
        });
        let limit = source.fetch_timeout;
        self.start(step, &job, limit);
    }

    fn build(&mut self, version: Version) {
        tracing::info!(
            commit = version.commit,
            summary = version.summary,
            "building"
        );
        let source = &self.config.source;
        let job = Job::Build(Build {
            home: self.config.home.clone(),
            repo: source.repo.clone(),
            ssh_keys: source.ssh_keys.clone(),
            version,
            bins: source.bins.clone(),
            profile: source.profile.clone(),
            features: source.features.clone(),
            target_dir: source.target_dir.clone(),
            log: self.config.log.build(&self.config.child_name),
            min_disk: source.min_disk,
            min_memory: source.min_memory,
            downloads: source.downloads.clone(),
        });
        let limit = source.build_timeout;
        self.start(Step::Build, &job, limit);
    }

    fn switch(&mut self, to: Version) {
        let rolling_back = self.update.phase == Phase::RollingBack;
        let accepted = self
            .update
            .accepted
            .as_ref()
            .map(|version| version.release.clone());
        let older = self
            .update
            .previous
            .as_ref()
            .map(|version| version.release.clone());
        let job = Job::Switch(Switch {
            home: self.config.home.clone(),
            to,
            previous: if rolling_back { older } else { accepted },
            hook: self
                .config
                .hooks
                .pre_update
                .clone()
                .filter(|_| !rolling_back),
        });
        self.start(Step::Switch, &job, SHORT_STEP);
    }

    fn record(&mut self, note: Note) {
        tracing::info!(result = ?note.result, commit = note.commit, reason = note.reason, "update");
        if let Err(error) = history::add(&self.config.home.history(), &note) {
            tracing::warn!(%error, "could not write the history");
        }
        if !self.config.notify.is_empty() || self.config.hooks.on_failure.is_some() {
            let job = Job::Tell(Tell {
                child_name: self.config.child_name.clone(),
                note,
                hook: self.config.hooks.on_failure.clone(),
                to: self.config.notify.clone(),
            });
            self.start(Step::Tell, &job, SHORT_STEP);
        }
    }

    fn start(&mut self, step: Step, job: &Job, limit: Duration) {
        self.last_tag += 1;
        let lines = self.lines.0.clone();
        match job::start(job, limit, self.last_tag, lines, &mut self.tasks) {
            Ok(running) => {
                self.steps.insert(self.last_tag, (step, running));
            }
            Err(error) => {
                let text = format!("could not start a worker: {error}");
                self.ended(step, Err(Fault::new(Blame::Machine, text)));
            }
        }
    }

    pub(super) fn line(&mut self, tag: u64, line: Line) {
        match line {
            Line::Progress(text) => {
                if self.update.accepted.is_none() && self.config.log.echo {
                    shared::term::note(&text);
                }
                self.progress = Some(text);
            }
            Line::Ended(answer) => {
                if let Some((step, _)) = self.steps.remove(&tag) {
                    self.ended(step, answer);
                }
            }
        }
    }

    fn ended(&mut self, step: Step, answer: Result<Answer, Fault>) {
        if step == Step::Check {
            return self.checked(answer);
        }
        self.progress = None;
        if let Err(fault) = &answer {
            tracing::warn!(?step, %fault, "a step of the update failed");
        }
        if self.child.is_halting() {
            return;
        }
        let done = answer.as_ref().map(|_| ()).map_err(Clone::clone);
        let event = match (step, answer) {
            (Step::Poll, answer) => {
                if answer.is_ok() {
                    self.polled_at = Some(shared::clock::now());
                }
                update::Event::Polled(answer.and_then(|answer| match answer {
                    Answer::Polled(polled) => Ok(polled),
                    Answer::Done => Err(Fault::new(Blame::Machine, "the worker answered nothing")),
                }))
            }
            (Step::Build, _) => update::Event::Built(done),
            (Step::Test, _) => update::Event::Tested(done),
            (Step::Switch, _) => update::Event::Switched(done),
            (Step::Accept, _) => {
                self.successor = self.find_successor();
                update::Event::Tidied
            }
            (Step::Tell | Step::Check, _) => return,
        };
        self.update_event(event);
    }

    fn spawn(&mut self, release: &str) {
        self.heard = health::Heard::default();
        let home = &self.config.home;
        // A pipe whose other end was removed by mistake would swallow the output.
        if !home.output().exists()
            && let Ok(pipe) = Pipe::open(&home.output())
        {
            self.pipe = pipe;
        }
        let _ = std::fs::remove_file(home.status());
        let spawned = self
            .config
            .child
            .command(home, release, &self.pipe.writer)
            .and_then(|mut command| command.spawn());
        let event = match spawned {
            Ok(process) => {
                tracing::info!(pid = process.id(), release, "started the child");
                child::Event::Spawned(process.id())
            }
            Err(error) => child::Event::SpawnFailed(format!("could not be started: {error}")),
        };
        let lost = matches!(event, child::Event::SpawnFailed(_))
            && !Release::is_there(&self.config.home, release);
        self.child_event(event);
        if lost {
            // A poll finds out that it has to be built again.
            self.update_event(update::Event::Ask(Haste::None));
        }
    }

    pub(super) fn order(&mut self, order: Order) {
        let reply = match order.command {
            Command::Check => {
                self.checks.push(order.reply);
                if self.checks.len() == 1 {
                    self.poll(Step::Check, false);
                }
                return;
            }
            Command::Status => Reply::Status(Box::new(self.report())),
            Command::Restart => {
                self.child_event(child::Event::Restart);
                Reply::Done("the child is being restarted".into())
            }
            Command::Stop => {
                self.stop();
                // pm2 can't be told to leave alone what has ended well.
                Reply::Done(match self.config.manager {
                    Some("pm2") => "stopping; pm2 will start it again: use `pm2 stop`".into(),
                    _ => "stopping".into(),
                })
            }
            Command::Update { force } => {
                if std::mem::take(&mut self.stuck) {
                    self.update_event(update::Event::Started);
                }
                let haste = if force { Haste::Forced } else { Haste::Asked };
                self.update_event(update::Event::Ask(haste));
                Reply::Done("looking for an update".into())
            }
            Command::Rollback => self.roll_back(),
        };
        // Whoever asked may have gone.
        let _ = order.reply.send(reply);
    }

    /// Tells everybody who asked what an update would do.
    fn checked(&mut self, answer: Result<Answer, Fault>) {
        let reply = match answer {
            Ok(Answer::Polled(polled)) => Reply::Check(polled),
            Ok(Answer::Done) => Reply::Refused("the worker answered nothing".into()),
            Err(fault) => Reply::Refused(fault.to_string()),
        };
        for asker in self.checks.drain(..) {
            let _ = asker.send(reply.clone());
        }
    }

    fn roll_back(&mut self) -> Reply {
        if self.update.previous.is_none() {
            return Reply::Refused("there is no previous release".into());
        }
        if self.update.phase != Phase::Idle {
            return Reply::Refused("an update is under way; see `supervisor status`".into());
        }
        self.update_event(update::Event::GoBack);
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
