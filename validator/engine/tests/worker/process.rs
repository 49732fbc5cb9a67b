//! An eval-worker process, and what to feed it.

use std::{
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use e2e::limit::Limit;
use model::{
    Architecture, Attention, Compatibility, Conversation, Dtype, Fault, MachineFaultKind,
    ModelFaultKind, PackingPlan, TokenizedSample,
    norms::NormLimits,
    protocol::{
        self, Answer, Evaluate, Evaluation, Hello, ModelSource, Phase, Reply, Request, Tokenize,
    },
};
use serde_json::Value;

pub(crate) struct Worker {
    child: Child,
    _limit: Limit,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    pub(crate) hello: Hello,
    /// Since the last answer.
    told_memory: bool,
}

/// What a build with a GPU computes on is its GPU, real or simulated.
pub(crate) const DEVICE: &str = if cfg!(feature = "cuda") {
    "cuda:0"
} else {
    "cpu"
};

impl Worker {
    pub(crate) fn start(readable: &[&Path], options: &[&str]) -> Self {
        Self::start_in(&[], readable, options)
    }

    /// Starts a worker with more in its environment.
    pub(crate) fn start_in(
        environment: &[(&str, &str)],
        readable: &[&Path],
        options: &[&str],
    ) -> Self {
        // As shipped, but for the GPU, which no shipped build here has.
        let program = if cfg!(feature = "cuda") {
            PathBuf::from(env!("CARGO_BIN_EXE_eval-worker"))
        } else {
            e2e::program("eval-worker")
        };
        let mut command = shared::process::blocking_command(program);
        command
            .args(["--threads", "2"])
            .args(options)
            .envs(environment.iter().copied());
        if !options.iter().any(|option| option.starts_with("--device=")) {
            command.args(["--device", DEVICE]);
        }
        for directory in readable {
            command.arg("--readable").arg(directory);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let limit = Limit::on(child.id());
        let stdin = child.stdin.take();
        let mut stdout = child.stdout.take().unwrap();
        let mut prefix = [0; 4];
        stdout.read_exact(&mut prefix).unwrap();
        let mut hello = vec![0; protocol::frame_length(prefix).unwrap()];
        stdout.read_exact(&mut hello).unwrap();
        let hello = Hello::decode(&hello).unwrap();
        Self {
            child,
            _limit: limit,
            stdin,
            stdout,
            hello,
            told_memory: false,
        }
    }

    pub(crate) fn send(&mut self, request: &Request) {
        protocol::write(self.stdin.as_mut().unwrap(), request).unwrap();
    }

    pub(crate) fn next(&mut self) -> Option<Reply> {
        protocol::read(&mut self.stdout).ok().flatten()
    }

    /// Asks, and returns the answer and the phases whose progress was reported.
    pub(crate) fn ask(&mut self, request: &Request) -> (Result<Answer, Fault>, Vec<Phase>) {
        self.send(request);
        let mut phases = Vec::new();
        loop {
            match self.next().unwrap() {
                Reply::Progress(progress) => {
                    assert!(progress.total == 0 || progress.done <= progress.total);
                    phases.push(progress.phase);
                }
                Reply::Memory(memory) => {
                    // Of a simulated GPU nothing may be taken yet.
                    let least = u64::from(!cfg!(feature = "cuda"));
                    assert!((least..=memory.total).contains(&memory.used), "{memory:?}");
                    self.told_memory = true;
                }
                Reply::Done(answer) => {
                    assert!(std::mem::take(&mut self.told_memory), "before each answer");
                    phases.dedup();
                    return (answer, phases);
                }
            }
        }
    }

    pub(crate) fn evaluate(
        &mut self,
        model: ModelSource,
        samples: Vec<TokenizedSample>,
    ) -> Result<Evaluation, Fault> {
        let plan = PackingPlan::new(&samples, 8192);
        match self
            .ask(&Request::Evaluate(Evaluate {
                model,
                samples,
                plan,
                next: None,
            }))
            .0?
        {
            Answer::Evaluated(evaluation) => Ok(*evaluation),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn tokenize(&mut self, directory: &Path) -> Result<Vec<TokenizedSample>, Fault> {
        match self.ask(&tokenize(directory)).0? {
            Answer::Tokenized(samples) => Ok(samples),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the end; returns the signal, if any, and standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        (self.child.wait().unwrap().signal(), stderr)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub(crate) fn source(directory: &Path) -> ModelSource {
    ModelSource {
        directory: directory.to_owned(),
        content_hash: None,
        architecture: Architecture::Llama,
        dtype: Dtype::F32,
        attention: Attention::Sdpa,
        compatibility: Compatibility::V4_40,
        max_parameters: None,
        norm_limits: NormLimits::default(),
    }
}

pub(crate) fn tokenize(directory: &Path) -> Request {
    Request::Tokenize(Tokenize {
        directory: directory.to_owned(),
        compatibility: Compatibility::V4_40,
        sequence_length: 2048,
        conversations: vec![Conversation::of("How are you?", "Fine."); 3],
    })
}

pub(crate) fn samples() -> Vec<TokenizedSample> {
    let sample = |length: u32, prompt_len| TokenizedSample {
        ids: (0..length).map(|t| (t * 31 + length) % 1000).collect(),
        prompt_len,
    };
    vec![sample(30, 10), sample(9, 3)]
}

/// Copies a golden directory, so that it can be spoiled.
pub(crate) fn copy(from: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to.to_owned()
}

#[expect(clippy::disallowed_methods, reason = "fixtures need no atomic writes")]
pub(crate) fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

pub(crate) fn kind(fault: &Fault) -> Result<ModelFaultKind, MachineFaultKind> {
    match fault {
        Fault::Model(fault) => Ok(fault.kind),
        Fault::Machine(fault) => Err(fault.kind),
    }
}
