//! What the validator and its eval-worker say to each other: length-limited frames over pipes.
//!
//! The worker speaks first, with a [`Hello`]. Then the validator sends one [`Request`] at a time
//! and reads [`Reply::Progress`] and [`Reply::Memory`] frames until a [`Reply::Done`]. The two are always built
//! together; [`VERSION`] catches a mix-up.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config::{Architecture, Compatibility},
    dtype::{Attention, Dtype},
    fault::Fault,
    hash::ContentHash,
    norms::NormLimits,
    plan::PackingPlan,
    tokens::{Conversation, TokenizedSample},
};

/// Rises with every change of the wire form.
pub const VERSION: u32 = 4;

/// The most bytes in a frame: 400 samples of 2048 tokens take 4 MB.
pub const MAX_FRAME: usize = 64 << 20;

/// Environment variables that workers may have. No other is passed on: a worker holds no secrets.
pub const ENVIRONMENT: [&str; 8] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    COMPUTE_CACHE,
    "RAYON_NUM_THREADS",
    "RUST_BACKTRACE",
    SPIN_LIMIT,
];

/// Names the folder where the GPU's driver keeps the kernels it compiled.
pub const COMPUTE_CACHE: &str = "CUDA_CACHE_PATH";

/// In 16 bits on a CPU, how long idle threads of the tensor library spin beside ours.
pub const SPIN_LIMIT: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";

const MAGIC: [u8; 4] = *b"EVAL";

/// What the worker says when it is ready, or why it can't be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub release: String,
    /// The device it computes on, or why it has none.
    pub device: Result<Device, Fault>,
    /// The walls around it, and which of them stand.
    pub sandbox: Vec<Wall>,
    /// Why it computes on the CPU of a machine that has a GPU, if it does.
    pub unused_gpu: Option<String>,
}

/// A device as people know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// As asked for on the command line: `cpu`, `cuda:0`.
    pub id: String,
    /// What it is: `NVIDIA H200`, `CPU (2 threads)`.
    pub name: String,
    /// Memory for models, in bytes, if it is the device's own.
    pub memory: Option<u64>,
}

/// One wall of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    /// Its name: `landlock`, `seccomp`.
    pub name: String,
    /// Whether it stands, and how well or why not, in words.
    pub stands: Result<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Evaluate a tiny built-in model and compare with known losses.
    SelfTest,
    Tokenize(Tokenize),
    /// Compute the losses of a model.
    Evaluate(Evaluate),
    /// Let a model answer a prompt.
    Generate(Generate),
    Shutdown,
    /// Compute the losses of a model with an independent implementation.
    Compare(Compare),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokenize {
    /// The directory of tokenizer (and model configuration).
    pub directory: PathBuf,
    pub compatibility: Compatibility,
    /// Samples are cut to this many tokens, on the right.
    pub sequence_length: usize,
    /// What to tokenize.
    pub conversations: Vec<Conversation>,
}

/// A model, and how it is to be computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSource {
    pub directory: PathBuf,
    /// What its files must hash to, if that is known. Also the name under which it stays loaded.
    pub content_hash: Option<ContentHash>,
    /// The architecture that is to run it: the competition's.
    pub architecture: Architecture,
    /// The type it is computed in.
    pub dtype: Dtype,
    pub attention: Attention,
    pub compatibility: Compatibility,
    pub max_parameters: Option<u64>,
    /// The largest norms allowed.
    pub norm_limits: NormLimits,
}

/// Compute the losses of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    pub model: ModelSource,
    pub samples: Vec<TokenizedSample>,
    /// Which of them share a forward pass.
    pub plan: PackingPlan,
    /// The model that comes next; its weights are read while this one computes.
    pub next: Option<ModelSource>,
}

/// Compute the losses of a model with an independent implementation, one sample at a time in f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// The model; its dtype and attention are not looked at.
    pub model: ModelSource,
    pub samples: Vec<TokenizedSample>,
}

/// Let a model answer a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    pub model: ModelSource,
    /// Where the tokenizer lies.
    pub tokenizer: PathBuf,
    /// The conversation to be continued: the turns before the last.
    pub conversation: Conversation,
    /// The most tokens in all, those of the prompt included.
    pub max_tokens: usize,
    /// Equal seeds give equal answers on one device.
    pub seed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is still at work.
    Progress(Progress),
    /// It is ready for the next request.
    Done(Result<Answer, Fault>),
    /// How full its device is; now and then, and before each answer.
    Memory(DeviceMemory),
}

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// Of a GPU, what all processes take; of the CPU, what the worker takes.
    pub used: u64,
    /// All there is; of the CPU, no more than the worker may take.
    pub total: u64,
}

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: Phase,
    pub done: u64,
    /// Of how much; 0 if not known.
    pub total: u64,
}

/// What is being done, and what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Weights are loaded (bytes).
    Load,
    /// Samples are tokenized (samples).
    Tokenize,
    /// Losses are computed (tokens).
    Evaluate,
    /// An answer is generated (tokens).
    Generate,
}

/// The answer to a request that went well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The device computes as it should.
    SelfTest(SelfTest),
    /// The samples, in the order of the conversations.
    Tokenized(Vec<TokenizedSample>),
    Evaluated(Box<Evaluation>),
    Generated(Generation),
    Goodbye,
    /// The losses of the independent implementation, or what of the model it leaves out.
    Compared(Result<Vec<f64>, String>),
}

/// The outcome of a self-test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// The largest difference to the known losses, and to those of the independent implementation.
    pub worst: f64,
    pub seconds: f64,
}

/// The losses of a model, and what it took to compute them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Loss per sample: NaN where no label is left, +inf where the model can't evaluate it.
    pub losses: Vec<f64>,
    /// What the model's files hash to.
    pub content_hash: ContentHash,
    /// Number of parameters, tied ones once.
    pub parameters: u64,
    /// Why the norms of the weights are beyond the limits, if they are.
    pub norms_refused: Option<String>,
    /// What is odd without being wrong: tensors not used, attention replaced.
    pub warnings: Vec<String>,
    pub counters: Counters,
    /// How long loading took, 0 if the model was still there.
    pub load_seconds: f64,
    pub compute_seconds: f64,
}

/// Amounts that tell, free of noise, whether work was wasted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Tokens of the samples.
    pub tokens: u64,
    /// Tokens that went through the decoder, padding included.
    pub computed_tokens: u64,
    pub scored_rows: u64,
    /// Positions that went through the output head.
    pub head_rows: u64,
    /// Bytes read from disk.
    pub bytes_read: u64,
}

/// What a model answered to a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub text: String,
    /// How many tokens it has.
    pub tokens: u64,
}

/// Why a frame could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    #[error("the pipe broke")]
    Pipe(#[from] io::Error),
    /// A frame is longer than allowed.
    #[error("a frame of {0} bytes exceeds the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// A frame is not what was expected.
    #[error("a frame is malformed")]
    Malformed(#[from] postcard::Error),
    /// A frame goes on after its message.
    #[error("a frame has {0} bytes too many")]
    Trailing(usize),
    /// The other side is not an eval-worker.
    #[error("this is not an eval-worker")]
    NoWorker,
    /// The other side is of another build.
    #[error("the eval-worker speaks protocol version {0}, the validator {VERSION}")]
    Version(u32),
}

/// Returns a message as a frame: its length in four bytes (little-endian), then the message.
pub fn frame(message: &impl Serialize) -> Result<Vec<u8>, ProtocolError> {
    let mut frame = postcard::to_extend(message, vec![0; 4])?;
    let length = frame.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME);
    let prefix = prefix.ok_or(ProtocolError::TooLong(length))?;
    frame[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// Returns how many bytes follow the four of a frame's prefix.
pub fn frame_length(prefix: [u8; 4]) -> Result<usize, ProtocolError> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_FRAME {
        Err(ProtocolError::TooLong(length))
    } else {
        Ok(length)
    }
}

/// Decodes the message of a frame (without its prefix).
pub fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<T, ProtocolError> {
    match postcard::take_from_bytes(message)? {
        (value, []) => Ok(value),
        (_, rest) => Err(ProtocolError::Trailing(rest.len())),
    }
}

/// Writes a message as one frame and flushes it.
pub fn write(mut writer: impl Write, message: &impl Serialize) -> Result<(), ProtocolError> {
    writer.write_all(&frame(message)?)?;
    Ok(writer.flush()?)
}

/// Reads one message; `None` if the other side closed the pipe between two frames.
pub fn read<T: DeserializeOwned>(mut reader: impl Read) -> Result<Option<T>, ProtocolError> {
    let mut prefix = [0; 4];
    if reader.read(&mut prefix[..1])? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut prefix[1..])?;
    let length = frame_length(prefix)?;
    // Grows as bytes come, so that a lying prefix costs nothing.
    let mut message = Vec::new();
    reader.take(length as u64).read_to_end(&mut message)?;
    if message.len() < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    decode(&message).map(Some)
}

impl Hello {
    /// Returns the first frame of a worker. Its magic number and version are readable by every
    /// version.
    pub fn frame(&self) -> Result<Vec<u8>, ProtocolError> {
        frame(&(MAGIC, VERSION, self))
    }

    /// Reads the first frame of a worker (without its prefix).
    pub fn decode(message: &[u8]) -> Result<Self, ProtocolError> {
        let ((magic, version), rest) = postcard::take_from_bytes::<([u8; 4], u32)>(message)
            .map_err(|_| ProtocolError::NoWorker)?;
        match (magic, version) {
            (MAGIC, VERSION) => decode(rest),
            (MAGIC, version) => Err(ProtocolError::Version(version)),
            _ => Err(ProtocolError::NoWorker),
        }
    }
}
