//! The worker: reads requests, answers them, survives what it can.

mod answers;
mod resident;
mod self_test;

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError, mpsc::Receiver},
    time::{Duration, Instant},
};

use candle_core::Device;
use model::{
    Fault, MachineFaultKind,
    protocol::{self, Answer, Hello, Phase, Progress, ProtocolError, Reply, Request},
};
use shared::{Exit, Failure, task::panic_message};

use self::resident::Residents;
use crate::{
    device::{self, Description, DeviceSpec},
    memory::MemoryGauge,
    sandbox::Entered,
};

/// Progress is reported no more often than this.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// In mid-work, memory is reported no more often than this.
const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// What a worker is told at its start.
#[derive(Debug)]
pub struct Setup {
    pub release: String,
    /// Where it was to compute.
    pub device: DeviceSpec,
    /// The most device memory for models that stay loaded, in bytes.
    pub device_memory: Option<u64>,
    pub gauge: MemoryGauge,
    /// The walls around this process, and the device behind them.
    pub entered: Entered,
}

/// A worker at its devices.
#[derive(Debug)]
pub struct Worker {
    devices: Vec<Device>,
    residents: Residents,
    channel: Channel,
}

/// The way back to the validator.
#[derive(Debug)]
struct Channel {
    frames: Mutex<File>,
    devices: Vec<Device>,
    gauge: MemoryGauge,
    /// When memory was reported last.
    measured: Mutex<Option<Instant>>,
}

impl Worker {
    /// Says hello, then answers requests until there are no more.
    pub fn serve(
        setup: Setup,
        frames: File,
        requests: Receiver<Result<Request, ProtocolError>>,
    ) -> Result<Exit, Failure> {
        let Setup {
            release,
            device: spec,
            device_memory,
            gauge,
            entered,
        } = setup;
        let Entered {
            devices,
            unused_gpu,
            walls: sandbox,
        } = entered;
        let channel = Channel {
            frames: Mutex::new(frames),
            devices: devices.as_ref().cloned().unwrap_or_default(),
            gauge,
            measured: Mutex::default(),
        };
        for wall in &sandbox {
            match &wall.stands {
                Ok(how) => tracing::info!(wall = wall.name, how, "sandbox"),
                Err(why) => tracing::warn!(wall = wall.name, why, "no sandbox"),
            }
        }
        let described = devices
            .as_ref()
            .map_err(Clone::clone)
            .map(|devices| describe(devices));
        if let Some(why) = &unused_gpu {
            tracing::warn!("computing on the CPU: {why}");
        }
        channel.hello(&Hello {
            release,
            device: described,
            sandbox,
            unused_gpu,
        })?;
        let devices = devices.map_err(|fault| {
            Failure::new(Exit::Machine, format_args!("no device {spec}"))
                .because(fault)
                .hint("--device cpu computes without a GPU, --device auto takes one if it is there")
        })?;
        let residents = Residents::new(&devices, device_memory);
        let mut worker = Self {
            devices,
            residents,
            channel,
        };
        for request in requests {
            let request = request.map_err(|error| Failure::of(Exit::Failed, &error))?;
            let last = request == Request::Shutdown;
            let answer = worker.answer(request);
            worker.channel.memory(Duration::ZERO);
            worker.channel.reply(&Reply::Done(answer))?;
            if last {
                break;
            }
        }
        Ok(Exit::Ok)
    }

    /// Answers a request. A panic is a fault like others.
    fn answer(&mut self, request: Request) -> Result<Answer, Fault> {
        let answer = catch_unwind(AssertUnwindSafe(|| match request {
            Request::SelfTest => self_test::run(&self.devices).map(Answer::SelfTest),
            Request::Tokenize(request) => answers::tokenize(&self.channel, &request),
            Request::Evaluate(request) => {
                answers::evaluate(&self.channel, &mut self.residents, &request)
            }
            Request::Generate(request) => {
                answers::generate(&self.channel, &mut self.residents, &request)
            }
            Request::Compare(request) => answers::compare(&self.channel, &self.devices, &request),
            Request::Shutdown => Ok(Answer::Goodbye),
        }));
        answer.unwrap_or_else(|panic| {
            let text = format!("panic: {}", panic_message(&*panic));
            Err(Fault::machine(MachineFaultKind::Bug, text))
        })
    }
}

fn describe(devices: &[Device]) -> protocol::Device {
    let Description { id, name, memory } = device::describe_all(devices);
    let memory = memory.map(|(_, total)| total);
    protocol::Device { id, name, memory }
}

impl Channel {
    fn hello(&self, hello: &Hello) -> Result<(), Failure> {
        let frame = hello
            .frame()
            .map_err(|error| Failure::of(Exit::Bug, &error))?;
        self.send(&frame)
    }

    fn reply(&self, reply: &Reply) -> Result<(), Failure> {
        let frame = protocol::frame(reply).map_err(|error| Failure::of(Exit::Bug, &error))?;
        self.send(&frame)
    }

    /// Says how full the device is, unless that was said less than `every` ago.
    fn memory(&self, every: Duration) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if measured.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        *measured = Some(Instant::now());
        if let Some(memory) = self.gauge.read(&self.devices) {
            // If nobody listens any more, the end of requests will tell.
            let _ = self.reply(&Reply::Memory(memory));
        }
    }

    fn send(&self, frame: &[u8]) -> Result<(), Failure> {
        use std::io::Write;
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames
            .write_all(frame)
            .map_err(|error| Failure::of(Exit::Failed, &error))
    }

    /// Returns a reporter of progress towards `total`.
    fn progress(&self, phase: Phase, total: u64) -> Reporter<'_> {
        Reporter {
            channel: self,
            phase,
            total,
            state: Mutex::new((0, None)),
        }
    }
}

/// Reports progress now and then.
struct Reporter<'a> {
    channel: &'a Channel,
    phase: Phase,
    total: u64,
    /// How much is done, and when that was last reported.
    state: Mutex<(u64, Option<Instant>)>,
}

impl Reporter<'_> {
    /// Adds to what is done.
    fn add(&self, amount: u64) {
        self.update(|done| done + amount);
    }

    fn set(&self, amount: u64) {
        self.update(|_| amount);
    }

    fn update(&self, change: impl FnOnce(u64) -> u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, reported) = &mut *state;
        *done = change(*done);
        let done = *done;
        if done < self.total && reported.is_some_and(|at| at.elapsed() < REPORT_EVERY) {
            return;
        }
        *reported = Some(Instant::now());
        let progress = Progress {
            phase: self.phase,
            done,
            total: self.total,
        };
        // If nobody listens any more, the end of requests will tell.
        let _ = self.channel.reply(&Reply::Progress(progress));
        self.channel.memory(MEMORY_EVERY);
    }
}
