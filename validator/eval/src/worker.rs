//! One eval-worker process: started, asked, killed.

use std::{
    collections::VecDeque,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::{
    Fault, MachineFaultKind,
    protocol::{self, Answer, DeviceMemory, Hello, ProtocolError, Reply, Request, SPIN_LIMIT},
};
use nix::sys::signal::Signal;
use shared::{process, task::TaskSet};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

use super::{OnProgress, limits::TimeLimits};

/// How long a worker may take to find its device and say hello.
const HELLO_LIMIT: Duration = Duration::from_mins(2);

/// How long a worker may take to end when asked to.
const GOODBYE_LIMIT: Duration = Duration::from_secs(5);

/// How many of the last lines of standard error are kept to explain a death.
const KEPT_LINES: usize = 20;

/// The longest line read from standard error at once.
const MAX_LINE: u64 = 4096;

/// How workers are started, and what they may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program, see [`super::program`].
    pub program: PathBuf,
    /// One worker is started for each: `cpu`, `cuda:0`, `auto`.
    pub devices: Vec<String>,
    /// One worker is started for all GPUs instead, so that each model is worked on by all of them.
    pub together: bool,
    /// The only directories of models and tokenizers that workers may read.
    pub readable: Vec<PathBuf>,
    /// The most host memory a worker may take, in bytes.
    pub memory: Option<u64>,
    /// The most device memory for models that stay loaded, in bytes.
    pub device_memory: Option<u64>,
    /// Threads of a worker; its cores if not given.
    pub threads: Option<usize>,
    /// Whether models run even where a wall that they should not be without can't be had.
    pub no_sandbox: bool,
    /// The environment of workers: values of [`protocol::ENVIRONMENT`].
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// Has all GPUs work on each model, instead of each on models of its own.
    #[must_use]
    pub fn together(self) -> Self {
        Self {
            together: true,
            ..self
        }
    }
}

/// In 16 bits on a CPU, idle threads of the tensor library do not spin beside ours.
const TUNING: (&str, &str) = (SPIN_LIMIT, "1");

#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    last_words: Arc<Mutex<VecDeque<String>>>,
    /// Ends when standard error does.
    silence: oneshot::Receiver<()>,
    hello: Hello,
    _tasks: TaskSet,
}

#[derive(Debug)]
pub(super) enum RequestEnd {
    /// The worker answered and is ready for the next request.
    Answered(Result<Answer, Fault>),
    /// The worker is of no more use; this is why.
    Lost(Fault),
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    pub(super) async fn start(options: &Options, device: &str) -> Result<Self, Fault> {
        let spawn_fault = |error| {
            let program = options.program.display();
            Fault::machine(MachineFaultKind::Spawn, format_args!("{program}: {error}"))
        };
        let mut command = process::command(&options.program);
        command
            .args(["--device", device])
            .env_clear()
            .env(TUNING.0, TUNING.1)
            .envs(
                options
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(threads) = options.threads {
            // The tensor library listens to nothing else.
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        for directory in &options.readable {
            command.arg("--readable").arg(directory);
        }
        command.args(options.no_sandbox.then_some("--no-sandbox"));
        let numbers = [
            ("--memory", options.memory),
            ("--device-memory", options.device_memory),
            ("--threads", options.threads.map(|threads| threads as u64)),
        ];
        for (flag, value) in numbers {
            command.args(value.map(|value| format!("{flag}={value}")));
        }
        let mut child = command.spawn().map_err(spawn_fault)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Fault::machine(MachineFaultKind::Bug, "a pipe was not made"));
        };
        let last_words = Arc::<Mutex<VecDeque<String>>>::default();
        let (speaking, silence) = oneshot::channel();
        let mut tasks = TaskSet::new();
        tasks.spawn(
            "eval-worker log",
            relay_log(stderr, device.to_owned(), last_words.clone(), speaking),
        );
        let hello = Hello {
            release: String::new(),
            device: Err(Fault::machine(MachineFaultKind::Bug, "not ready")),
            sandbox: Vec::new(),
            unused_gpu: None,
        };
        let stdout = BufReader::new(stdout);
        let mut worker = Self {
            child,
            stdin,
            stdout,
            last_words,
            silence,
            hello,
            _tasks: tasks,
        };
        match timeout(HELLO_LIMIT, read_frame(&mut worker.stdout)).await {
            Err(_) => Err(not_started(worker.hung(HELLO_LIMIT).await)),
            Ok(Err(error)) => Err(not_started(worker.lost(error).await)),
            Ok(Ok(frame)) => match Hello::decode(&frame) {
                Err(error) => Err(worker.lost(error).await),
                Ok(Hello {
                    device: Err(fault), ..
                }) => Err(fault),
                Ok(hello) => Ok(Self { hello, ..worker }),
            },
        }
    }

    /// Returns what the worker said of itself.
    pub(super) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Returns the process id, while the process runs.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask(
        &mut self,
        request: &Request,
        limits: TimeLimits,
        on_progress: OnProgress<'_>,
        on_memory: &(dyn Fn(DeviceMemory) + Sync),
    ) -> RequestEnd {
        let deadline = Instant::now() + limits.total;
        let frame = match protocol::frame(request) {
            Ok(frame) => frame,
            // Nothing of it was sent: the worker is as well as before.
            Err(error) => {
                let fault = Fault::machine(MachineFaultKind::TooLarge, chain(&error));
                return RequestEnd::Answered(Err(fault));
            }
        };
        match timeout_at(deadline, self.send(&frame)).await {
            Err(_) => return RequestEnd::Lost(self.hung(limits.total).await),
            Ok(Err(error)) => return RequestEnd::Lost(self.lost(error).await),
            Ok(Ok(())) => {}
        }
        loop {
            let idle = Instant::now() + limits.idle;
            let (until, limit) = if idle < deadline {
                (idle, limits.idle)
            } else {
                (deadline, limits.total)
            };
            let reply = timeout_at(until, async {
                protocol::decode::<Reply>(&read_frame(&mut self.stdout).await?)
            });
            match reply.await {
                Err(_) => return RequestEnd::Lost(self.hung(limit).await),
                Ok(Err(error)) => return RequestEnd::Lost(self.lost(error).await),
                Ok(Ok(Reply::Progress(progress))) => on_progress(progress),
                Ok(Ok(Reply::Memory(memory))) => on_memory(memory),
                Ok(Ok(Reply::Done(answer))) => return RequestEnd::Answered(answer),
            }
        }
    }

    /// Asks the worker to end, and makes sure that it does.
    pub(super) async fn shut_down(mut self) {
        let goodbye = protocol::frame(&Request::Shutdown).unwrap_or_default();
        let sent = timeout(GOODBYE_LIMIT, self.send(&goodbye)).await;
        if matches!(sent, Ok(Ok(()))) {
            let _ = timeout(GOODBYE_LIMIT, self.child.wait()).await;
        }
        self.kill().await;
    }

    async fn send(&mut self, frame: &[u8]) -> Result<(), ProtocolError> {
        self.stdin.write_all(frame).await?;
        Ok(self.stdin.flush().await?)
    }

    /// Kills a worker that took too long.
    async fn hung(&mut self, limit: Duration) -> Fault {
        self.kill().await;
        let text = format!("no answer within {} s", limit.as_secs_f32());
        Fault::machine(MachineFaultKind::Hung, self.explained(text))
    }

    /// Finds out why the pipes of a worker failed.
    async fn lost(&mut self, error: ProtocolError) -> Fault {
        // A dying worker closes its pipes a moment before it can be waited for.
        let by_itself = timeout(GOODBYE_LIMIT, self.child.wait()).await;
        let Ok(Ok(status)) = by_itself else {
            self.kill().await;
            return Fault::machine(MachineFaultKind::Protocol, self.explained(chain(&error)));
        };
        // What it said last may still be on its way to us.
        let _ = timeout(GOODBYE_LIMIT, &mut self.silence).await;
        match error {
            ProtocolError::Pipe(_) => {
                let kind = if self.ran_out_of_memory(status) {
                    MachineFaultKind::OutOfMemory
                } else {
                    MachineFaultKind::Crashed
                };
                Fault::machine(kind, self.explained(status.to_string()))
            }
            error => Fault::machine(MachineFaultKind::Protocol, self.explained(chain(&error))),
        }
    }

    async fn kill(&mut self) {
        if let Some(group) = self.child.id()
            && let Err(error) = process::signal_group(group, Signal::SIGKILL)
        {
            tracing::warn!(%error, "could not kill an eval-worker");
        }
        let _ = timeout(GOODBYE_LIMIT, self.child.wait()).await;
    }

    /// Rust aborts after naming the size it could not get; the kernel kills without a word.
    fn ran_out_of_memory(&self, status: ExitStatus) -> bool {
        let words = self
            .last_words
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        status.signal() == Some(Signal::SIGABRT as i32)
            && words
                .iter()
                .any(|line| line.starts_with("memory allocation of"))
    }

    fn explained(&self, what: String) -> String {
        let words = self
            .last_words
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match words.back() {
            Some(line) => format!("{what}; its last words: {line}"),
            None => what,
        }
    }
}

/// A worker that died before its first word has met no model that could have provoked it.
fn not_started(fault: Fault) -> Fault {
    match fault {
        Fault::Machine(fault) if fault.kind.may_be_provoked() => {
            Fault::machine(MachineFaultKind::Spawn, fault.text)
        }
        other => other,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ProtocolError> {
    let length = protocol::frame_length(reader.read_u32_le().await?.to_le_bytes())?;
    // Grows as bytes come, so that a lying prefix costs nothing.
    let mut message = Vec::new();
    reader.take(length as u64).read_to_end(&mut message).await?;
    if message.len() < length {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(message)
}

/// Relays a worker's log lines to ours, and keeps the last ones.
async fn relay_log(
    stderr: impl AsyncRead + Unpin,
    device: String,
    last_words: Arc<Mutex<VecDeque<String>>>,
    _speaking: oneshot::Sender<()>,
) -> Result<(), shared::Failure> {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::debug!(%device, line = %text.escape_debug(), "eval-worker");
        if !text.is_empty() {
            let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
            if words.len() == KEPT_LINES {
                words.pop_front();
            }
            words.push_back(text);
        }
    }
}
