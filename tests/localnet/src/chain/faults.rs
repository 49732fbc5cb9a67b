//! Trouble on demand: silence, dropped connections, refusals; and a count of what was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Which calls get no answer for now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Stall {
    #[default]
    Nothing,
    /// These methods, or notifications by their own names such as `chain_finalizedHead`.
    Methods(BTreeSet<String>),
    /// All but `dev_*`.
    Everything,
}

impl Stall {
    fn covers(&self, method: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Methods(methods) => methods.contains(method),
            Self::Everything => !method.starts_with("dev_"),
        }
    }
}

/// An error that the next calls of a method answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallError {
    /// The method; `None` is any but `dev_*`.
    pub method: Option<String>,
    /// JSON-RPC error code: `-32005` is what public nodes say to too many requests.
    pub code: i32,
    pub message: String,
    pub count: u32,
}

#[derive(Debug, Default)]
struct Armed {
    call_errors: Vec<CallError>,
    /// False answers: the method, the answer, and how many calls get it.
    answers: Vec<(String, Value, u32)>,
    /// HTTP status and how many connections get it.
    http: Option<(u16, u32)>,
    /// `Custom(n)` and how many submissions get it.
    submissions: Option<(u8, u32)>,
    refused_until: Option<Instant>,
    connections: CancellationToken,
    requests: BTreeMap<String, u64>,
}

/// The faults of one chain.
#[derive(Debug, Default)]
pub(super) struct ChainFaults {
    armed: Mutex<Armed>,
    stall: watch::Sender<Stall>,
}

impl ChainFaults {
    fn armed(&self) -> MutexGuard<'_, Armed> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that this covers wait until another stall no longer does; then they are answered.
    pub(super) fn stall(&self, stall: Stall) {
        self.stall.send_replace(stall);
    }

    /// Waits while calls or notifications of this name are stalled.
    pub(super) async fn wait_for(&self, method: &str) {
        let mut stall = self.stall.subscribe();
        // The sender is in `self`, so the channel does not close while this waits.
        let _ = stall.wait_for(|stall| !stall.covers(method)).await;
    }

    /// Drops all connections, and for a while each new one at once.
    pub(super) fn cut(&self, refuse_for: Duration) {
        let mut armed = self.armed();
        armed.refused_until = Instant::now().checked_add(refuse_for);
        std::mem::take(&mut armed.connections).cancel();
    }

    /// Answers the next `count` connections with this HTTP status.
    pub(super) fn refuse_http(&self, status: u16, count: u32) {
        self.armed().http = Some((status, count));
    }

    pub(super) fn fail_calls(&self, error: CallError) {
        self.armed().call_errors.push(error);
    }

    /// Makes coming calls of a method answer this.
    pub(super) fn answer_calls(&self, method: &str, result: Value, count: u32) {
        self.armed()
            .answers
            .push((method.to_owned(), result, count));
    }

    /// Refuses the next `count` extrinsics at the pool with `Custom(code)`.
    pub(super) fn fail_submissions(&self, code: u8, count: u32) {
        self.armed().submissions = Some((code, count));
    }

    pub(super) fn clear(&self) {
        let mut armed = self.armed();
        armed.call_errors.clear();
        armed.answers.clear();
        armed.http = None;
        armed.submissions = None;
        armed.refused_until = None;
        drop(armed);
        self.stall(Stall::Nothing);
    }

    /// Returns what a new connection gets: silence and its end, a status, or its token, which is
    /// cancelled when connections are cut.
    pub(super) fn admit(&self) -> Admission {
        let mut armed = self.armed();
        if armed
            .refused_until
            .is_some_and(|until| Instant::now() < until)
        {
            return Admission::Drop;
        }
        match take_one(&mut armed.http) {
            Some(status) => Admission::Status(status),
            None => Admission::Serve(armed.connections.child_token()),
        }
    }

    /// Counts a call, and returns what it must answer instead of the truth, if anything.
    pub(super) fn note_call(&self, method: &str) -> Option<Reply> {
        let mut armed = self.armed();
        *armed.requests.entry(method.to_owned()).or_default() += 1;
        if method.starts_with("dev_") {
            return None;
        }
        let hit = |error: &&mut CallError| {
            error.count > 0 && error.method.as_deref().is_none_or(|name| name == method)
        };
        if let Some(error) = armed.call_errors.iter_mut().find(hit) {
            error.count -= 1;
            return Some(Reply::Error {
                code: error.code,
                message: error.message.clone(),
            });
        }
        let hit = |(name, _, count): &&mut (String, Value, u32)| *count > 0 && name == method;
        armed
            .answers
            .iter_mut()
            .find(hit)
            .map(|(_, result, count)| {
                *count -= 1;
                Reply::Result(result.clone())
            })
    }

    /// Returns the code with which this submission must fail, if any.
    pub(super) fn note_submission(&self) -> Option<u8> {
        take_one(&mut self.armed().submissions)
    }

    /// Returns how often each method was called.
    pub(super) fn requests(&self) -> BTreeMap<String, u64> {
        self.armed().requests.clone()
    }

    pub(super) fn reset_requests(&self) {
        self.armed().requests.clear();
    }
}

/// What a call answers instead of the truth.
#[derive(Debug)]
pub(super) enum Reply {
    Error { code: i32, message: String },
    Result(Value),
}

/// What a new connection gets.
#[derive(Debug)]
pub(super) enum Admission {
    Serve(CancellationToken),
    Status(u16),
    Drop,
}

/// Takes one of what is left.
fn take_one<V: Copy>(left: &mut Option<(V, u32)>) -> Option<V> {
    let (value, count) = left.take()?;
    if count > 1 {
        *left = Some((value, count - 1));
    }
    (count > 0).then_some(value)
}
