//! Losses of a step: what is known is kept, what is missing is computed, faults find their owner.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use model::{
    Architecture, ContentHash, Fault as EvalFault, MachineFault, PackingPlan, TokenizedSample,
    protocol::{Evaluate, Evaluation, ModelSource, Progress},
};
use shared::term;
use tokio::time::Instant;

use super::{Candidate, Context, Field};
use crate::state::ModelLosses;
use eval::TimeLimits;
use report::{status::Activity, step_record::Plan};
use subnet::{Competition, Fault, Real};

/// A model that brings down this many workers while the machine is sound is itself the reason.
const STRIKES: usize = 3;

/// The samples as one tokenizer sees them.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Hash of the tokenizer.
    pub(super) tokenizer: String,
    pub(super) samples: Vec<TokenizedSample>,
    pub(super) packs: PackingPlan,
    /// What the record says of them.
    pub(super) plan: Plan,
}

/// What became of the content of a model.
pub(super) type Verdict = Result<ModelLosses, Fault>;

/// What is to be evaluated, and on what.
pub(super) struct Round<'a> {
    pub(super) step: u64,
    pub(super) competition: &'a Competition,
    pub(super) architecture: Architecture,
    /// Digest of the sample set.
    pub(super) samples: &'a str,
    /// When the step has taken too long.
    pub(super) deadline: Instant,
    /// The tokens for each model, by content; or why its tokenizer gives none.
    pub(super) tokens: BTreeMap<ContentHash, Result<Arc<Tokens>, Fault>>,
}

impl Round<'_> {
    /// Computes the losses that are not known yet. A fault of a model is a verdict; a fault of
    /// the machine ends the round, with every loss computed so far remembered.
    pub(super) async fn run(
        &self,
        context: &Context,
        field: &Field,
    ) -> Result<BTreeMap<ContentHash, Verdict>, Fault> {
        let (mut verdicts, mut queue) = self.known(context, field);
        let bar = term::bar(
            queue.len() as u64,
            format!("evaluating {}", self.competition.id),
        );
        context.board.begin_round(queue.len());
        let mut running = FuturesUnordered::new();
        let mut finished = verdicts.values().filter(|verdict| verdict.is_ok()).count();
        loop {
            while running.len() < context.evaluator.width()
                && let Some(job) = queue.pop_front()
            {
                context.board.activity(Activity::Evaluating {
                    model: job.0.model.repository(),
                    competition: self.competition.id.clone(),
                });
                let next = queue.front().map(|(next, _)| self.source(context, next));
                running.push(self.evaluate(context, job, next));
            }
            let Some((job, outcome)) = running.next().await else {
                break;
            };
            shared::notify::watchdog();
            let (candidate, tokens) = &job;
            match outcome {
                Ok(evaluation) => {
                    bar.inc(1);
                    context.board.model_done();
                    finished += 1;
                    let verdict = self.judge(context, candidate, tokens, evaluation)?;
                    verdicts.insert(candidate.content, verdict);
                }
                Err(EvalFault::Model(fault)) => {
                    judge_copy(context, candidate, &fault).await?;
                    bar.inc(1);
                    context.board.model_done();
                    let fault = Fault::model(fault);
                    tracing::info!(model = %candidate.model, %fault, "model at fault");
                    verdicts.insert(candidate.content, Err(fault));
                }
                Err(EvalFault::Machine(fault)) => {
                    if Instant::now() >= self.deadline {
                        return Err(Fault::machine(format_args!(
                            "the step's time limit came while {} was evaluated; what is done is \
                             kept, see --step-minutes",
                            candidate.model.repository()
                        )));
                    }
                    if !fault.kind.may_be_provoked() {
                        judge_copy(context, candidate, &fault).await?;
                        return Err(Fault::machine(fault));
                    }
                    let strikes = strike(context, candidate.content, &fault)?;
                    // Until another model went through, it may be the machine after all.
                    if strikes < STRIKES || (finished == 0 && !queue.is_empty()) {
                        queue.push_back(job);
                    } else if finished == 0 {
                        return Err(Fault::machine(fault));
                    } else {
                        bar.inc(1);
                        context.board.model_done();
                        let fault = Fault::model(format_args!(
                            "it brought down {strikes} workers while others were well: {fault}"
                        ));
                        tracing::warn!(model = %candidate.model, %fault, "model at fault");
                        verdicts.insert(candidate.content, Err(fault));
                    }
                }
            }
        }
        bar.finish_and_clear();
        Ok(verdicts)
    }

    /// Splits the field into verdicts that need no work and models still to be evaluated.
    fn known<'f>(
        &self,
        context: &Context,
        field: &'f Field,
    ) -> (BTreeMap<ContentHash, Verdict>, VecDeque<Job<'f>>) {
        let engine = context.engine();
        let known = context
            .state
            .look(|state| state.known_losses(&self.competition.id, self.samples, &engine));
        let mut verdicts = BTreeMap::new();
        let mut queue = VecDeque::new();
        for (_, candidate) in field.originals() {
            let content = candidate.content;
            match self.tokens.get(&content) {
                Some(Ok(tokens)) => match known.get(&content.to_string()) {
                    Some(losses) if losses.plan == tokens.plan => {
                        let mut losses = losses.clone();
                        losses.seconds = 0.0;
                        verdicts.insert(content, Ok(losses));
                    }
                    _ => queue.push_back((candidate, Arc::clone(tokens))),
                },
                Some(Err(fault)) => {
                    verdicts.insert(content, Err(fault.clone()));
                }
                None => {}
            }
        }
        (verdicts, queue)
    }

    pub(super) fn source(&self, context: &Context, candidate: &Candidate) -> ModelSource {
        ModelSource {
            directory: candidate.directory.clone(),
            content_hash: Some(candidate.content),
            architecture: self.architecture,
            dtype: context.settings.dtype,
            attention: context.settings.attention,
            compatibility: context.settings.parameters.compatibility,
            max_parameters: Some(self.competition.max_parameters),
            norm_limits: context.settings.parameters.norms,
        }
    }

    async fn evaluate<'f>(
        &self,
        context: &Context,
        job: Job<'f>,
        next: Option<ModelSource>,
    ) -> (Job<'f>, Result<Evaluation, EvalFault>) {
        let (candidate, tokens) = &job;
        let request = Evaluate {
            model: self.source(context, candidate),
            samples: tokens.samples.clone(),
            plan: tokens.packs.clone(),
            next,
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let patience = TimeLimits::within(left.max(Duration::from_secs(1)));
        let on_progress = |_: Progress| shared::notify::watchdog();
        let outcome = context
            .evaluator
            .evaluate(request, patience, &on_progress)
            .await;
        (job, outcome)
    }

    /// Remembers the losses of a model, so that a restart does not compute them again.
    fn judge(
        &self,
        context: &Context,
        candidate: &Candidate,
        tokens: &Tokens,
        evaluation: Evaluation,
    ) -> Result<Verdict, Fault> {
        for warning in &evaluation.warnings {
            tracing::info!(model = %candidate.model, warning, "odd model");
        }
        if let Some(norms) = evaluation.norms_refused {
            return Ok(Err(Fault::model(norms)));
        }
        let losses = ModelLosses {
            tokenizer: tokens.tokenizer.clone(),
            plan: tokens.plan.clone(),
            parameters: evaluation.parameters,
            losses: evaluation.losses.into_iter().map(Real).collect(),
            seconds: evaluation.load_seconds + evaluation.compute_seconds,
        };
        let content = candidate.content.to_string();
        let engine = context.engine();
        context.state.update(|state| {
            state.strikes.remove(&content);
            state.learn(
                &self.competition.id,
                self.samples,
                &engine,
                &content,
                losses.clone(),
            );
        })?;
        // Only now: a line of the log stands for losses that are never computed again.
        tracing::info!(
            step = self.step,
            model = candidate.model.repository(),
            content,
            seconds = (losses.seconds * 1e3).round() / 1e3,
            "losses recorded"
        );
        Ok(Ok(losses))
    }
}

/// Looks whether our copy of a model is what was verified, before a fault that a worker found in it
/// speaks against its miner: disks decay. A damaged copy is this machine's fault, and is fetched
/// again.
pub(super) async fn judge_copy(
    context: &Context,
    candidate: &Candidate,
    found: &impl std::fmt::Display,
) -> Result<(), Fault> {
    let (store, content) = (context.store.clone(), candidate.content);
    let judged = tokio::task::spawn_blocking(move || store.judge_copy(&content));
    let judged = judged.await.map_err(Fault::machine)?;
    let Some(damage) = judged.map_err(Fault::machine)? else {
        return Ok(());
    };
    let model = candidate.model.repository();
    tracing::error!(%model, %content, damage, %found, "our copy of a model is damaged; it is fetched again");
    Err(Fault::machine(format_args!(
        "our copy of {model} is damaged ({damage}), it is fetched again; see that the disk is sound"
    )))
}

type Job<'f> = (&'f Candidate, Arc<Tokens>);

/// Notes that a model's worker was lost, and returns how often that has happened.
fn strike(context: &Context, content: ContentHash, fault: &MachineFault) -> Result<usize, Fault> {
    tracing::warn!(%content, %fault, "a worker was lost, the self-test passed");
    let strikes = context.state.update(|state| {
        let strikes = state.strikes.entry(content.to_string()).or_default();
        strikes.push(fault.to_string());
        strikes.len()
    })?;
    Ok(strikes)
}
