//! The `eval-worker` binary: evaluates models for the validator, behind walls.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::PathBuf,
    sync::mpsc::{self, Receiver},
};

use clap::Parser;
use engine::{
    STACK,
    device::DeviceSpec,
    memory::MemoryGauge,
    sandbox::{self, Allowed},
    worker::{Setup, Worker},
};
use model::protocol::{self, ProtocolError, Request};
use nix::{sys::signal, unistd};
use shared::{Exit, Failure, log};

/// Evaluates models for the validator, which starts it; it is of no use by itself.
#[derive(Debug, Parser)]
#[command(name = "eval-worker", args_override_self = true)]
struct Args {
    /// Where to compute: cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,
    /// A directory of models or tokenizers
    #[arg(long, value_name = "DIR")]
    readable: Vec<PathBuf>,
    /// Directories of libraries beyond the usual ones
    #[arg(
        long,
        value_name = "DIRS",
        env = "LD_LIBRARY_PATH",
        value_delimiter = ':',
        value_parser = sandbox::search_path()
    )]
    libraries: Vec<PathBuf>,
    /// Where the GPU's driver keeps the kernels it compiled
    #[arg(long, value_name = "DIR", env = "CUDA_CACHE_PATH")]
    compute_cache: Option<PathBuf>,
    /// The most memory to take, in bytes
    #[arg(long, value_name = "BYTES")]
    memory: Option<u64>,
    /// The most device memory for models that stay loaded, in bytes
    #[arg(long, value_name = "BYTES")]
    device_memory: Option<u64>,
    /// Threads to compute with
    #[arg(long, value_name = "N", env = "RAYON_NUM_THREADS")]
    threads: Option<usize>,
    /// Run models even where a wall that they should not be without can't be had
    #[arg(long)]
    no_sandbox: bool,
    /// Walls that are not raised, to learn what the others hold or which is in a driver's way
    #[arg(long, value_name = "WALLS", value_delimiter = ',', hide = true)]
    without: Vec<String>,
    /// Compile the GPU's kernels into the cache, and end
    #[arg(long, hide = true)]
    compile: bool,
    /// The environment is as it should be
    #[arg(long, hide = true)]
    prepared: bool,
    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
}

fn main() -> Exit {
    let version = shared::version!();
    let command = <Args as clap::CommandFactory>::command().version(version.to_string());
    let parsed = command.try_get_matches();
    let args = match parsed.and_then(|matches| clap::FromArgMatches::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            return error.print().map_or(Exit::Failed, |()| exit);
        }
    };
    run(args, version.release).unwrap_or_else(|failure| failure.print())
}

fn run(args: Args, release: &str) -> Result<Exit, Failure> {
    log::init(&args.log, log::Format::Text);
    if !args.prepared {
        let error = sandbox::restart(
            &args.device,
            args.compute_cache.as_deref(),
            &compiling(&args),
            vec!["--prepared".into()],
        );
        return Err(Failure::of(Exit::Machine, &error));
    }
    let Args {
        device,
        readable,
        libraries,
        compute_cache,
        memory,
        device_memory,
        threads,
        no_sandbox,
        without,
        compile,
        ..
    } = args;
    let allowed = Allowed {
        readable,
        libraries,
        compute_cache,
        memory,
        no_sandbox,
        without,
    };
    if compile {
        sandbox::limit_time();
    }
    let walls = sandbox::separate(&allowed);
    let frames = take_stdout().map_err(|error| Failure::of(Exit::Machine, &error))?;
    let gauge = MemoryGauge::open(allowed.memory);
    let entered = sandbox::enter(walls, &device, &allowed);
    if compile {
        let opened = entered.devices.map(|_| Exit::Ok);
        return opened.map_err(|fault| Failure::of(Exit::Machine, &fault));
    }
    let threads = threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK)
        .build_global()
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    let setup = Setup {
        release: release.to_owned(),
        device,
        device_memory,
        gauge,
        entered,
    };
    let requests = receive();
    // The main thread's stack is whatever the system gave it.
    let worker = std::thread::Builder::new()
        .name("worker".to_owned())
        .stack_size(STACK)
        .spawn(move || Worker::serve(setup, frames, requests))
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    match worker.join() {
        Ok(served) => served,
        Err(panic) => Err(Failure::new(
            Exit::Bug,
            shared::task::panic_message(&*panic),
        )),
    }
}

/// Returns the arguments of a process that compiles what this one would.
fn compiling(args: &Args) -> Vec<OsString> {
    let words = ["--prepared", "--compile", "--no-sandbox", "--device"].map(OsString::from);
    let device = args.device.to_string().into();
    let options = [
        ("--libraries", &args.libraries),
        (
            "--compute-cache",
            &args.compute_cache.iter().cloned().collect(),
        ),
    ];
    let folders = options.into_iter().flat_map(|(option, folders)| {
        let pairs = folders
            .iter()
            .map(move |folder| [option.into(), folder.into()]);
        pairs.flatten()
    });
    let without = args
        .without
        .iter()
        .flat_map(|wall| ["--without".into(), wall.into()]);
    words
        .into_iter()
        .chain([device])
        .chain(folders)
        .chain(without)
        .collect()
}

/// Takes standard output for frames; what a library may print goes to standard error instead.
fn take_stdout() -> io::Result<File> {
    let frames = unistd::dup(io::stdout())?;
    unistd::dup2_stdout(io::stderr())?;
    Ok(frames.into())
}

/// Reads requests in a thread of its own, so that the end of the validator is noticed while the
/// worker computes.
fn receive() -> Receiver<Result<Request, ProtocolError>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let request = match protocol::read(&mut stdin) {
                Ok(Some(request)) => Ok(request),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            let last = matches!(request, Ok(Request::Shutdown) | Err(_));
            if sender.send(request).is_err() || last {
                return;
            }
        }
        // Nobody is left to hear of anything; drivers may take long to clean up.
        let _ = signal::raise(signal::Signal::SIGKILL);
    });
    receiver
}
