//! The one loop: gathers what happens, lets the pure parts decide, carries out what they say.

mod effects;
pub mod machine;
mod report;
mod start;
mod troubles;
mod workers;

use std::{
    io,
    time::{Duration, Instant},
};

use shared::{Exit, Failure, file::FileLock, task::TaskSet};
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};

use self::{
    machine::{Event, Machine},
    troubles::Troubles,
    workers::Workers,
};
use crate::{
    child::{
        control::{self, FoundChild},
        group::ChildGroup,
        health::{Notification, Notified, NotifyMessage, NotifySocket},
        launch::Launcher,
        log::{ChildLog, Pipe},
        state::{ChildEvent, ChildPolicy, Stage},
    },
    config::Config,
    control::{PendingRequest, Reply},
    job::Line,
    metrics::Scrapes,
    update::state::{Phase, UpdateEvent, Urgency},
};

/// Between looks at a child that is not ours to wait for.
const ADOPTED_POLL: Duration = Duration::from_millis(500);

/// Between looks whether what is wrong has lasted.
const CALL_EVERY: Duration = Duration::from_secs(15);

/// The most that a child is given by one EXTEND_TIMEOUT_USEC.
const MAX_EXTENSION: Duration = Duration::from_hours(1);

/// Both ends of a bounded queue.
type Queue<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

/// Reads the configuration anew, for SIGHUP.
pub(crate) type Reload = Box<dyn Fn() -> Result<Config, Failure>>;

/// Everything the loop can wake up for.
enum Input {
    Signal(&'static str),
    ChildEnded,
    Line(u64, Line),
    Notified(NotifyMessage),
    Output(usize),
    Request(PendingRequest),
    Connection(io::Result<tokio::net::UnixStream>),
    Scrape(io::Result<tokio::net::TcpStream>),
    TaskEnded,
    Due,
}

pub(crate) struct Supervisor {
    config: Config,
    reload: Reload,
    version: String,
    began: Instant,
    machine: Machine,
    /// The child, if an earlier supervisor started it: it is not ours to wait for.
    adopted: Option<FoundChild>,
    /// Its control group, or why it has none.
    group: Result<ChildGroup, String>,
    /// What becomes the next child, while the last one ends.
    launcher: Option<Launcher>,
    /// When to look at it again.
    look_at: Duration,
    notified: Notified,
    workers: Workers,
    progress: Option<String>,
    polled_at: Option<jiff::Timestamp>,
    /// How often our own watchdog wants to hear of us, and when next.
    pings: Option<(Duration, Duration)>,
    /// The release that this process was started from, where that is known.
    identity: Option<String>,
    successor: Option<std::path::PathBuf>,
    log: ChildLog,
    pipe: Pipe,
    buffer: Vec<u8>,
    notify_socket: NotifySocket,
    listener: UnixListener,
    scrapes: Option<Scrapes>,
    requests: Queue<PendingRequest>,
    signals: Signals,
    tasks: TaskSet,
    troubles: Troubles,
    /// When to look again whether people are to be called, though nothing happens.
    call_at: Option<Duration>,
    /// Who waits for the answer to a check.
    checks: Vec<oneshot::Sender<Reply>>,
    _locks: [FileLock; 2],
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    poll: Signal,
    child: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            poll: signal(SignalKind::user_defined1())?,
            child: signal(SignalKind::child())?,
        })
    }

    async fn next(&mut self) -> Input {
        tokio::select! {
            _ = self.child.recv() => Input::ChildEnded,
            _ = self.terminate.recv() => Input::Signal("SIGTERM"),
            _ = self.interrupt.recv() => Input::Signal("SIGINT"),
            _ = self.reload.recv() => Input::Signal("SIGHUP"),
            _ = self.poll.recv() => Input::Signal("SIGUSR1"),
        }
    }
}

impl Supervisor {
    /// Keeps the child alive and up to date until told to stop.
    pub(crate) async fn run(mut self) -> Result<Exit, Failure> {
        self.recover();
        crate::self_update::arrived(&self.config.home, self.identity.as_deref());
        shared::notify::ready();
        loop {
            let input = self.next().await;
            let busy = self.machine.update().phase != Phase::Idle;
            self.wake(input);
            self.call_people();
            if busy && self.machine.update().phase == Phase::Idle {
                crate::memory::let_go_of_code();
            }
            if let Some(successor) = self.successor.take() {
                self.become_successor(&successor);
            }
            if self.machine.child().is_halted() {
                self.drain_output();
                tracing::info!("stopped");
                return Ok(Exit::Ok);
            }
        }
    }

    async fn next(&mut self) -> Input {
        let due = self.due().map(|due| self.began + due);
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let scrape = async {
            match &self.scrapes {
                Some(scrapes) => scrapes.accept().await,
                None => std::future::pending().await,
            }
        };
        let task = async {
            if self.tasks.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        };
        let output = async {
            loop {
                let ready = self.pipe.reader.readable().await;
                if let (Ok(()), Ok(read)) = (ready, self.pipe.reader.try_read(&mut self.buffer)) {
                    break read;
                }
            }
        };
        tokio::select! {
            input = self.signals.next() => input,
            Some((tag, line)) = self.workers.line() => Input::Line(tag, line),
            message = self.notify_socket.receive() => Input::Notified(message),
            Some(pending) = self.requests.1.recv() => Input::Request(pending),
            accepted = self.listener.accept() => {
                Input::Connection(accepted.map(|(stream, _)| stream))
            }
            stream = scrape => Input::Scrape(stream),
            read = output => Input::Output(read),
            () = task => Input::TaskEnded,
            () = sleep => Input::Due,
        }
    }

    fn wake(&mut self, input: Input) {
        match input {
            Input::Signal(name) => self.signalled(name),
            Input::ChildEnded => self.reap(),
            Input::Line(tag, line) => self.line(tag, line),
            Input::Notified(message) => {
                let child = self.machine.child().running().map(|child| child.pid);
                for line in message.of(child) {
                    self.notified(line);
                }
            }
            Input::Output(read) => self.log.append(&self.buffer[..read]),
            Input::Request(pending) => self.request(pending),
            Input::Connection(Ok(stream)) => {
                let requests = self.requests.0.clone();
                self.tasks
                    .spawn("control", crate::control::serve(stream, requests));
            }
            Input::Scrape(Ok(stream)) => {
                if let Some(scrapes) = &self.scrapes {
                    let serving = scrapes.serve(stream, &self.report());
                    self.tasks.spawn("metrics", serving);
                }
            }
            Input::Connection(Err(error)) | Input::Scrape(Err(error)) => {
                tracing::warn!(%error, "could not accept a connection");
            }
            Input::TaskEnded => {}
            Input::Due => self.due_now(),
        }
        self.sweep();
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns the next moment at which time alone changes something.
    fn due(&self) -> Option<Duration> {
        let now = self.now();
        let adopted = self.adopted.as_ref().map(|_| self.look_at);
        let silence = self.machine.child().running().and(self.notified.silence);
        let ping = self.pings.map(|(_, next)| next);
        [self.machine.due(now), adopted, silence, ping, self.call_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn due_now(&mut self) {
        let now = self.now();
        if let Some((every, next)) = self.pings
            && next <= now
        {
            shared::notify::watchdog();
            self.pings = Some((every, now + every));
        }
        if self.adopted.is_some() && self.look_at <= now {
            // A fixed time: other events must not put the look off for ever.
            self.look_at = now + ADOPTED_POLL;
            self.look_after_adopted();
        }
        if self.notified.silence.is_some_and(|silence| silence <= now) {
            self.notified.silence = None;
            self.take(ChildEvent::Hung);
        }
        if self.machine.update_is_due(now) {
            // An end that nobody has noticed yet must not be taken for a probation that was passed.
            self.reap();
            self.look_after_adopted();
        }
        self.take(Event::Tick);
    }

    /// Tells people what is wrong when it has lasted, and when it is over.
    fn call_people(&mut self) {
        if self.config.notify.is_empty() {
            return;
        }
        let now = self.now();
        let due = self.troubles.look(&self.machine, now, shared::clock::now());
        for notice in due {
            let (cause, text) = (notice.cause, &notice.text);
            tracing::info!(%cause, text, "calling people");
            self.call(notice);
        }
        self.call_at = self.troubles.is_open().then(|| now + CALL_EVERY);
    }

    /// Notices the end of a child that an earlier supervisor started.
    fn look_after_adopted(&mut self) {
        if let Some(found) = &self.adopted
            && !control::still_runs(found.pid, found.started)
        {
            self.adopted = None;
            let how = "ended (it was started by an earlier supervisor)".to_owned();
            self.take(ChildEvent::Exited { how, code: None });
        }
    }

    /// Finishes off what is left of the last child's group, as soon as that is possible.
    fn sweep(&mut self) {
        while let Stage::Sweeping { group, .. } = self.machine.child().stage
            && !control::family_runs(&self.config.home, group)
            && !self.group.as_ref().is_ok_and(ChildGroup::is_populated)
        {
            if let Ok(group) = &self.group {
                group.remove();
            }
            self.drain_output();
            self.take(ChildEvent::GroupEmpty);
        }
    }

    fn reap(&mut self) {
        for ended in control::reap() {
            let child = self.machine.child().running();
            if child.is_some_and(|child| child.pid == ended.pid) {
                self.adopted = None;
                tracing::info!(pid = ended.pid, how = ended.how, "the child ended");
                self.take(ChildEvent::Exited {
                    how: ended.how,
                    code: ended.code,
                });
            }
        }
    }

    fn signalled(&mut self, name: &str) {
        tracing::info!(signal = name, "signal");
        match name {
            "SIGHUP" => self.reload_config(),
            "SIGUSR1" => self.take(UpdateEvent::ask(Urgency::Asked)),
            _ => self.stop(),
        }
    }

    /// The first time asks the child to end, the second time kills it.
    fn stop(&mut self) {
        shared::notify::stopping();
        self.workers.kill_all();
        if self.machine.child().halted {
            self.take(ChildEvent::Kill);
        }
        self.take(ChildEvent::Halt);
    }

    fn reload_config(&mut self) {
        let config = match (self.reload)() {
            Ok(config) => config,
            Err(failure) => {
                tracing::error!(%failure, "the new configuration is not used");
                return;
            }
        };
        if config.home != self.config.home || config.repo != self.config.repo {
            tracing::error!("the child's name, the state directory and the checkout can't change");
            return;
        }
        tracing::info!("configuration read; arguments of the child apply at its next start");
        self.machine
            .set_policy(config.policy.clone(), child_policy(&config));
        self.config = config;
        self.launcher = None;
    }

    fn notified(&mut self, line: Notification) {
        let now = self.now();
        self.notified.speaks = true;
        match line {
            Notification::Ready => {
                tracing::info!("the child is ready");
                self.take(ChildEvent::Ready);
            }
            Notification::Status(line) => {
                shared::notify::status(&line);
                self.notified.status = Some(line);
            }
            Notification::Alive => {
                let watchdog = self.config.child.watchdog;
                self.notified.silence = (!watchdog.is_zero()).then_some(now + watchdog);
            }
            Notification::Hung => self.take(ChildEvent::Hung),
            Notification::Stopping => self.notified.silence = None,
            Notification::Extend(by) => self.extend(by.min(MAX_EXTENSION)),
        }
    }

    /// Gives the child more time for whatever it is being waited for.
    fn extend(&mut self, by: Duration) {
        if matches!(self.machine.child().stage, Stage::Stopping { .. }) {
            shared::notify::extend_timeout(by);
        }
        let until = self.now() + by;
        if let Some(silence) = &mut self.notified.silence {
            *silence = until.max(*silence);
        }
        self.take(Event::Extend(by));
    }

    fn drain_output(&mut self) {
        while let Ok(read @ 1..) = self.pipe.reader.try_read(&mut self.buffer) {
            self.log.append(&self.buffer[..read]);
        }
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn child_policy(config: &Config) -> ChildPolicy {
    ChildPolicy {
        stop_timeout: config.stop_timeout,
    }
}
