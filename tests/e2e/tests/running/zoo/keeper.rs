//! Looks at one specimen as a validator does: verifies, fetches, tokenizes, evaluates.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::program;
use eval::{Evaluator, Options, TimeLimits};
use http_client::RetryPolicy;
use hub::{Hub, HubOptions};
use indicatif::ProgressBar;
use localnet::hub::{Hub as HubServer, Kind, Ports};
use model::{
    Architecture, Attention, Compatibility, ContentHash, Conversation, Dtype, Fault, PackingPlan,
    norms::NormLimits,
    protocol::{Evaluate, ModelSource, Tokenize},
};
use models::{
    Rejection, Report, Rules, Store, Verifier,
    report::Stage,
    store::StoreLimits,
    verify::{Assertion, Reach},
};
use subnet::{BlockNumber, ModelId, Parameters};
use tempfile::TempDir;

use super::{specimen::Specimen, table::Row};
use crate::proc::{peak_kib, resident_kib, workers};

/// All that the worker may take, whatever it is asked.
const MEMORY: u64 = 1 << 30;

/// As long as each of many tokenizers and models has in a step, at least: the product's own deadline.
const LIMITS: TimeLimits = TimeLimits {
    total: Duration::from_secs(20),
    idle: Duration::from_secs(20),
};

/// Where specimens try to write.
const ESCAPES: [&str; 2] = ["/tmp/zoo-escape", "/tmp/zoo-escape.jinja"];

pub(crate) struct Keeper {
    hub: HubServer,
    evaluator: Evaluator,
    /// The worker that should live through it all.
    worker: AtomicU32,
    /// Who ended it.
    ended: Mutex<Vec<String>>,
    rules: Rules,
    folder: TempDir,
}

/// Where a specimen's way ended, and why.
struct End {
    place: &'static str,
    why: String,
    bytes: u64,
}

impl Keeper {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let evaluator = Evaluator::new(Options {
            program: program("eval-worker"),
            devices: vec!["cpu".into()],
            readable: vec![folder.path().to_owned()],
            memory: Some(MEMORY),
            together: false,
            device_memory: None,
            no_sandbox: false,
            threads: Some(2),
            environment: Vec::new(),
        });
        let worker = worker_of(&evaluator).await;
        Self {
            hub: HubServer::start(Ports::default()).await.unwrap(),
            evaluator,
            worker: AtomicU32::new(worker),
            ended: Mutex::default(),
            rules: rules(),
            folder,
        }
    }

    pub(crate) async fn row(&self, specimen: &Specimen) -> Row {
        let id = format!("zoo/{}", specimen.name);
        let commit = self.hub.commit_model(&id, specimen.files.clone());
        let claim = claim(&self.hub, specimen, &commit, &self.rules).await;
        if let Some(trouble) = &specimen.trouble {
            let server = if trouble.at_cdn {
                &self.hub.cdn
            } else {
                &self.hub.api
            };
            server.faults.set(vec![trouble.rule.clone()]);
        }
        let home = self.folder.path().join(&specimen.name);
        let worker = self.worker.load(Ordering::Relaxed);
        let before = resident_now(worker) / 1024;
        let began = Instant::now();
        let impatient = specimen.trouble.is_some();
        let End { place, why, bytes } = self.end(&claim, &home, impatient).await;
        let seconds = began.elapsed().as_secs_f64();
        self.hub.api.faults.clear();
        self.hub.cdn.faults.clear();
        self.hub.edit(|all| all.remove(Kind::Model, &id));
        let now = worker_of(&self.evaluator).await;
        let mib = (peak_kib(now) / 1024).saturating_sub(before);
        if now != worker {
            self.worker.store(now, Ordering::Relaxed);
            self.ended.lock().unwrap().push(specimen.name.clone());
        }
        let why = why.replace(&home.display().to_string(), "");
        let why = why.replace(&self.hub.url(), "");
        if home.exists() {
            let here: Vec<_> = fs::read_dir(&home).unwrap().flatten().collect();
            assert_eq!(here.len(), 1, "{} wrote beside the store", specimen.name);
            fs::remove_dir_all(&home).unwrap();
        }
        Row::new(
            &specimen.name,
            place,
            &why,
            bytes.div_ceil(1024),
            seconds,
            mib,
        )
    }

    async fn end(&self, claim: &Assertion, home: &Path, impatient: bool) -> End {
        let store = Store::open(&home.join("store"), StoreLimits::default()).unwrap();
        let verifier = Verifier {
            hub: client(&self.hub, impatient),
            store: Some(store),
        };
        let mut report = Report::default();
        let reach = Reach::Download {
            bar: ProgressBar::hidden(),
        };
        let judged = verifier
            .verify(claim, &self.rules, reach, &mut report)
            .await;
        let bytes = report.bytes_fetched;
        let end = |place, why: String| End { place, why, bytes };
        let model = match judged {
            Ok(model) => model.unwrap(),
            Err(Rejection::Refused { reason, .. }) => {
                let place = match report.stage {
                    Stage::Metadata => "verify: small files",
                    Stage::Headers => "verify: bytes",
                    Stage::Bytes => "verify: all bytes",
                };
                return end(place, reason);
            }
            Err(Rejection::Retry { fault, .. }) => {
                assert_eq!(fault.kind, subnet::FaultKind::Outside, "{fault}");
                return end("put off", "the hub's fault".to_owned());
            }
        };
        let tokenize = tokenize(&model.dir, self.rules.compatibility);
        let asked = self.evaluator.tokenize(tokenize, LIMITS, &|_| {}).await;
        let samples = match asked {
            Ok(samples) => samples,
            Err(Fault::Model(fault)) => return end("tokenize", fault.to_string()),
            Err(Fault::Machine(fault)) => return end("LOST", fault.to_string()),
        };
        let plan = PackingPlan::new(&samples, 8192);
        let source = ModelSource {
            directory: model.dir,
            content_hash: Some(model.record.content_hash),
            architecture: self.rules.architecture,
            dtype: Dtype::F32,
            attention: Attention::Sdpa,
            compatibility: self.rules.compatibility,
            max_parameters: self.rules.max_parameters,
            norm_limits: NormLimits::default(),
        };
        let evaluate = Evaluate {
            model: source,
            samples,
            plan,
            next: None,
        };
        match self.evaluator.evaluate(evaluate, LIMITS, &|_| {}).await {
            Ok(found) => {
                if let Some(norms) = found.norms_refused {
                    return end("evaluate", norms.clone());
                }
                let odd = found.losses.iter().filter(|loss| !loss.is_finite()).count();
                match odd {
                    0 => end("accepted", "all losses are finite".to_owned()),
                    _ => end(
                        "accepted",
                        format!("{odd} of {} losses are not finite", found.losses.len()),
                    ),
                }
            }
            Err(Fault::Model(fault)) => end("evaluate", fault.to_string()),
            Err(Fault::Machine(fault)) => end("LOST", fault.to_string()),
        }
    }

    /// Nothing lies outside.
    pub(crate) async fn close(self) {
        self.evaluator.shut_down().await;
        let left: Vec<PathBuf> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let ended = self.ended.into_inner().unwrap();
        assert!(ended.is_empty(), "these ended a worker: {ended:?}");
        assert_nothing_escaped();
    }
}

pub(crate) fn assert_nothing_escaped() {
    for path in ESCAPES {
        assert!(!Path::new(path).exists(), "{path} was written");
    }
}

/// The rules of the competition of the Llamas.
pub(crate) fn rules() -> Rules {
    let parameters = Parameters::embedded();
    let competitions = parameters.competitions_at(BlockNumber::MAX);
    let l3 = competitions.iter().find(|one| one.id.0 == "l3").unwrap();
    let rules = Rules::of(&parameters, l3, Dtype::F32).unwrap();
    assert_eq!(rules.architecture, Architecture::Llama);
    rules
}

/// What the miner of a specimen commits to: the truth, or what it would be if it could be known.
pub(crate) async fn claim(
    server: &HubServer,
    specimen: &Specimen,
    commit: &str,
    rules: &Rules,
) -> Assertion {
    let nothing = ContentHash::from_digest([0; 32]);
    let mut claim = Assertion {
        model_id: ModelId {
            namespace: "zoo".into(),
            name: specimen.name.clone(),
            revision: Some(commit.into()),
            hash: Some(nothing.to_string()),
            competition: Some("l3".into()),
        },
        hotkey: None,
    };
    let verifier = Verifier {
        hub: client(server, false),
        store: None,
    };
    let mut report = Report::default();
    let told = verifier.verify(&claim, rules, Reach::Metadata, &mut report);
    told.await.unwrap_err();
    if let (Some(hash), false) = (report.content_hash, specimen.lies) {
        claim.model_id.hash = Some(hash.to_string());
    }
    claim
}

/// A client of the hub, with little patience where it is known to be in vain.
fn client(server: &HubServer, impatient: bool) -> Hub {
    let mut options = HubOptions::new(server.url().parse().unwrap());
    if impatient {
        options.http.timeouts.stall = Duration::from_secs(1);
        options.http.timeouts.trickle = Duration::from_secs(1);
    }
    options.http.retry = RetryPolicy {
        attempts: 2,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(500),
    };
    Hub::new(options).unwrap()
}

/// Conversations of every length, and of characters that are more than one.
fn tokenize(directory: &Path, compatibility: Compatibility) -> Tokenize {
    Tokenize {
        directory: directory.to_owned(),
        compatibility,
        sequence_length: 2048,
        conversations: vec![
            Conversation::of("How are you?", "Fine, thanks."),
            Conversation::of("word ".repeat(200), "a".repeat(20_000)),
            Conversation::of(
                "\u{fdfa}\u{1f469}\u{200d}\u{1f680} e\u{301}".repeat(50),
                "\0\u{feff}\r\n",
            ),
        ],
    }
}

/// Returns the process that works, below the guard if there is one.
async fn worker_of(evaluator: &Evaluator) -> u32 {
    let process = evaluator.start().await.remove(0).process.unwrap();
    workers(process).first().copied().unwrap_or(process)
}

/// Returns what is resident of a process, and lets the kernel forget how much it ever was.
fn resident_now(pid: u32) -> u64 {
    let forget = File::options()
        .write(true)
        .open(format!("/proc/{pid}/clear_refs"));
    // Where it may not be asked to, less is measured.
    let _ = forget.and_then(|mut file| file.write_all(b"5"));
    resident_kib(pid)
}
