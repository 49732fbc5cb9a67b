//! The one loop: gathers what happens, lets the pure parts decide, carries out what they say.

mod effects;
mod report;
mod start;

pub use report::{ChildReport, FORMAT, Process, Report, UpdateReport};

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use shared::{Exit, Failure, file::FileLock, task::TaskSet};
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};

use crate::{
    child::{
        control::{self, Found},
        health::{Ear, Heard, Word},
        log::{ChildLog, Pipe},
        state::{self as child, Child},
    },
    config::Config,
    control::{Order, Reply},
    job::{self, Line},
    metrics,
    update::{
        journal::Journal,
        state::{self as update, Haste, State},
    },
};

/// Between looks at a child that is not ours to wait for.
const ADOPTED_POLL: Duration = Duration::from_millis(500);

/// Both ends of a bounded queue.
type Queue<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

/// Reads the configuration anew, for SIGHUP.
pub type Reload = Box<dyn Fn() -> Result<Config, Failure>>;

/// Everything the loop can wake up for.
enum Input {
    Signal(&'static str),
    ChildEnded,
    Line(u64, Line),
    Said(Vec<Word>),
    Output(usize),
    Order(Order),
    Connection(io::Result<tokio::net::UnixStream>),
    Scrape(io::Result<tokio::net::TcpStream>),
    TaskEnded,
    Due,
}

/// Which effect a worker carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Poll,
    Build,
    Test,
    Switch,
    Accept,
    Tell,
    Check,
}

/// A supervisor at work.
pub struct Supervisor {
    config: Config,
    reload: Reload,
    version: String,
    began: Instant,
    update: State,
    journal: Journal,
    child: Child,
    adopted: Option<Found>,
    look_at: Duration,
    heard: Heard,
    steps: BTreeMap<u64, (Step, job::Running)>,
    last_tag: u64,
    progress: Option<String>,
    polled_at: Option<jiff::Timestamp>,
    pings: Option<(Duration, Duration)>,
    identity: Option<String>,
    successor: Option<std::path::PathBuf>,
    log: ChildLog,
    pipe: Pipe,
    buffer: Vec<u8>,
    ear: Ear,
    listener: UnixListener,
    scrapes: Option<tokio::net::TcpListener>,
    lines: Queue<(u64, Line)>,
    orders: Queue<Order>,
    signals: Signals,
    tasks: TaskSet,
    checks: Vec<oneshot::Sender<Reply>>,
    stuck: bool,
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
    pub async fn run(mut self) -> Result<Exit, Failure> {
        self.recover();
        crate::self_update::arrived(&self.config.home, self.identity.as_deref());
        shared::notify::ready();
        loop {
            let input = self.next().await;
            let busy = self.update.phase != update::Phase::Idle;
            self.take(input);
            if busy && self.update.phase == update::Phase::Idle {
                crate::memory::let_go_of_code();
            }
            if let Some(successor) = self.successor.take() {
                self.become_successor(&successor);
            }
            if self.child.is_halted() {
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
                Some(listener) => listener.accept().await.map(|(stream, _)| stream),
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
            Some((tag, line)) = self.lines.1.recv() => Input::Line(tag, line),
            words = self.ear.hear() => Input::Said(words),
            Some(order) = self.orders.1.recv() => Input::Order(order),
            accepted = self.listener.accept() => {
                Input::Connection(accepted.map(|(stream, _)| stream))
            }
            stream = scrape => Input::Scrape(stream),
            read = output => Input::Output(read),
            () = task => Input::TaskEnded,
            () = sleep => Input::Due,
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Signal(name) => self.signalled(name),
            Input::ChildEnded => self.reap(),
            Input::Line(tag, line) => self.line(tag, line),
            Input::Said(words) => words.into_iter().for_each(|word| self.said(word)),
            Input::Output(read) => self.log.append(&self.buffer[..read]),
            Input::Order(order) => self.order(order),
            Input::Connection(Ok(stream)) => {
                let orders = self.orders.0.clone();
                self.tasks
                    .spawn("control", crate::control::serve(stream, orders));
            }
            Input::Scrape(Ok(stream)) => {
                let text = metrics::render(&self.report());
                self.tasks.spawn("metrics", metrics::serve(stream, text));
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
        let silence = self.child.running().and(self.heard.silence);
        let ping = self.pings.map(|(_, next)| next);
        [self.update.due, self.child.due(now), adopted, silence, ping]
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
        if self.heard.silence.is_some_and(|silence| silence <= now) {
            self.heard.silence = None;
            self.child_event(child::Event::Hung);
        }
        let sweeping = matches!(self.child.stage, child::Stage::Sweeping { .. });
        if sweeping || self.child.due(now).is_some_and(|due| due <= now) {
            self.child_event(child::Event::Tick { group_empty: false });
        }
        if self.update_is_due() {
            // An end that nobody has noticed yet must not be taken for a probation that was passed.
            self.reap();
            self.look_after_adopted();
        }
        if self.update_is_due() {
            // What could not be journaled was not done either: begin again where it stands.
            let again = std::mem::take(&mut self.stuck);
            self.update_event(if again {
                update::Event::Started
            } else {
                update::Event::Tick
            });
        }
    }

    fn update_is_due(&self) -> bool {
        self.update.due.is_some_and(|due| due <= self.now())
    }

    /// Notices the end of a child that an earlier supervisor started.
    fn look_after_adopted(&mut self) {
        if let Some(found) = &self.adopted
            && !control::still_runs(found.pid, found.started)
        {
            self.adopted = None;
            let how = "ended (it was started by an earlier supervisor)".to_owned();
            self.child_event(child::Event::Exited { how, code: None });
        }
    }

    /// Finishes off what is left of the last child's group, as soon as that is possible.
    fn sweep(&mut self) {
        while let child::Stage::Sweeping { group, .. } = self.child.stage
            && !control::group_runs(group)
        {
            self.drain_output();
            self.child_event(child::Event::Tick { group_empty: true });
        }
    }

    fn reap(&mut self) {
        for ended in control::reap() {
            if self
                .child
                .running()
                .is_some_and(|child| child.pid == ended.pid)
            {
                self.adopted = None;
                tracing::info!(pid = ended.pid, how = ended.how, "the child ended");
                self.child_event(child::Event::Exited {
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
            "SIGUSR1" => self.update_event(update::Event::Ask(Haste::Asked)),
            _ => self.stop(),
        }
    }

    /// The first time asks the child to end, the second time kills it.
    fn stop(&mut self) {
        shared::notify::stopping();
        for (_, running) in self.steps.values() {
            running.kill();
        }
        if self.child.is_halting() {
            self.child_event(child::Event::Kill);
        }
        self.child_event(child::Event::Halt);
    }

    fn reload_config(&mut self) {
        let config = match (self.reload)() {
            Ok(config) => config,
            Err(failure) => {
                tracing::error!(%failure, "the new configuration is not used");
                return;
            }
        };
        if config.home != self.config.home || config.source.repo != self.config.source.repo {
            tracing::error!("the child's name, the state directory and the checkout can't change");
            return;
        }
        tracing::info!("configuration read; arguments of the child apply at its next start");
        self.child.stop_timeout = config.stop_timeout;
        self.config = config;
    }

    fn said(&mut self, word: Word) {
        let now = self.now();
        self.heard.speaks = true;
        match word {
            Word::Ready => {
                tracing::info!("the child is ready");
                self.child_event(child::Event::Ready);
            }
            Word::Status(line) => {
                shared::notify::status(&line);
                self.heard.status = Some(line);
            }
            Word::Alive => {
                let watchdog = self.config.child.watchdog;
                self.heard.silence = (!watchdog.is_zero()).then_some(now + watchdog);
            }
            Word::Hung => self.child_event(child::Event::Hung),
            Word::Stopping => self.heard.silence = None,
            Word::Extend(by) => self.extend(by.min(Duration::from_hours(1))),
        }
    }

    /// Gives the child more time for whatever it is being waited for.
    fn extend(&mut self, by: Duration) {
        let until = self.now() + by;
        if let child::Stage::Stopping { kill_at, .. } = &mut self.child.stage {
            *kill_at = until.max(*kill_at);
            shared::notify::extend_timeout(by);
        }
        if let Some(silence) = &mut self.heard.silence {
            *silence = until.max(*silence);
        }
        if matches!(self.update.phase, update::Phase::Probation { .. })
            && self.update.ready.is_none()
            && let Some(due) = &mut self.update.due
        {
            *due = until.max(*due);
        }
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
