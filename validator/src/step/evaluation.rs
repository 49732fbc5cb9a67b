//! Losses of a step: what is known is kept, what is missing is computed, faults find their owner.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{
    Architecture, ContentHash, Fault as EvalFault, MachineFault, MachineFaultKind, PackingPlan,
    TokenizedSample,
    protocol::{Evaluate, Evaluation, ModelSource, Progress},
};
use shared::term;
use tokio::time::Instant;

use super::{
    Candidate, Context, Field,
    attribution::{self, Court, Docket, Halt, Trouble, Work},
};
use crate::state::ModelLosses;
use eval::TimeLimits;
use report::{status::Activity, step_record::Plan};
use subnet::{Competition, Fault, Real};

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
    ) -> Result<BTreeMap<ContentHash, Verdict>, Halt> {
        let (mut verdicts, mut waiting) = self.known(context, field);
        let sizes = field.originals();
        let sizes = sizes.map(|(_, candidate)| (candidate.content, candidate.parameters));
        let width = context.evaluator.width();
        let bench = Bench {
            round: self,
            context,
            candidates: by_content(field),
            shares: attribution::shares(&sizes.collect(), context.settings.limit, width),
        };
        // Those under suspicion come last: what goes through before them clears the machine.
        waiting.sort_by_key(|content| bench.is_suspect(*content));
        let control = verdicts.iter().find(|(_, verdict)| verdict.is_ok());
        let control = control.map(|(content, _)| *content);
        let text = format!("evaluating {}", self.competition.id);
        let bar = term::bar(waiting.len() as u64, text);
        context.board.begin_round(waiting.len());
        let docket = Docket::new(waiting, control);
        let settled = attribution::settle(&bench, docket, width, |_| {
            bar.inc(1);
            context.board.model_done();
        })
        .await?;
        bar.finish_and_clear();
        for (content, found) in settled {
            let verdict = found.and_then(|verdict| verdict);
            if let (Err(fault), Some(candidate)) = (&verdict, bench.candidates.get(&content)) {
                tracing::warn!(model = %candidate.model, %fault, "model at fault");
            }
            verdicts.insert(content, verdict);
        }
        Ok(verdicts)
    }

    /// Splits the field into verdicts that need no work and models still to be evaluated.
    fn known(
        &self,
        context: &Context,
        field: &Field,
    ) -> (BTreeMap<ContentHash, Verdict>, Vec<ContentHash>) {
        let engine = context.engine();
        let known = context
            .state
            .look(|state| state.known_losses(&self.competition.id, self.samples, &engine));
        let mut verdicts = BTreeMap::new();
        let mut waiting = Vec::new();
        for (_, candidate) in field.originals() {
            let content = candidate.content;
            match self.tokens.get(&content) {
                Some(Ok(tokens)) => match known.get(&content.to_string()) {
                    Some(losses) if losses.plan == tokens.plan => {
                        let mut losses = losses.clone();
                        losses.seconds = 0.0;
                        verdicts.insert(content, Ok(losses));
                    }
                    _ => waiting.push(content),
                },
                Some(Err(fault)) => {
                    verdicts.insert(content, Err(fault.clone()));
                }
                None => {}
            }
        }
        (verdicts, waiting)
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
        let is_known = context.state.look(|state| {
            let known = state.known_losses(&self.competition.id, self.samples, &engine);
            let known = known.get(&content);
            known.is_some_and(|known| known.plan == losses.plan)
        });
        if is_known {
            tracing::info!(
                content,
                "a model that is known to be good went through again: the machine is well"
            );
            return Ok(Ok(losses));
        }
        let kept = losses.clone();
        context
            .state
            .learn(&self.competition.id, self.samples, &engine, &content, kept)?;
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
    let failed = |error| Fault::machine(shared::Failure::of(shared::Exit::Machine, &error));
    let Some(damage) = judged.map_err(failed)? else {
        return Ok(());
    };
    let model = candidate.model.repository();
    tracing::error!(%model, %content, damage, %found, "our copy of a model is damaged; it is fetched again");
    Err(Fault::machine(format_args!(
        "our copy of {model} is damaged ({damage}), it is fetched again; see that the disk is sound"
    )))
}

/// Returns the models of a field that are worked on, by content.
pub(super) fn by_content(field: &Field) -> BTreeMap<ContentHash, &Candidate> {
    field
        .originals()
        .map(|(_, candidate)| (candidate.content, candidate))
        .collect()
}

/// Remembers that work on a model lost its worker.
pub(super) fn suspect(
    context: &Context,
    work: Work,
    content: ContentHash,
    fault: &MachineFault,
) -> Result<(), Fault> {
    tracing::warn!(%content, %fault, "a worker was lost, the self-test passed");
    let (name, fault) = (work.on(&content), fault.to_string());
    let noted = context
        .state
        .update(|state| state.suspects.insert(name, fault));
    noted?;
    Ok(())
}

/// Remembers that work went through on a model, if that makes a difference to any.
pub(super) fn passed(
    context: &Context,
    work: Work,
    content: ContentHash,
    unproven: &[ContentHash],
) -> Result<(), Fault> {
    let (prefix, name) = (work.prefix(), work.on(&content));
    let differs = context.state.look(|state| {
        state.strikes.contains_key(&name)
            || state.suspects.keys().any(|other| other.starts_with(prefix))
    });
    if differs {
        let unproven = unproven.iter().map(|other| work.on(other)).collect();
        context
            .state
            .update(|state| state.went_through(prefix, &name, &unproven))?;
    }
    Ok(())
}

/// Returns how many lost workers count against work on a model.
pub(super) fn strikes(context: &Context, work: Work, content: ContentHash) -> usize {
    let name = work.on(&content);
    context
        .state
        .look(|state| state.strikes.get(&name).map_or(0, Vec::len))
}

/// Evaluates the models of a round.
struct Bench<'a> {
    round: &'a Round<'a>,
    context: &'a Context,
    candidates: BTreeMap<ContentHash, &'a Candidate>,
    /// How long each may take.
    shares: BTreeMap<ContentHash, Duration>,
}

impl Bench<'_> {
    fn is_suspect(&self, content: ContentHash) -> bool {
        let name = Work::Evaluate.on(&content);
        self.context
            .state
            .look(|state| state.strikes.contains_key(&name) || state.suspects.contains_key(&name))
    }
}

fn time_limit(candidate: &Candidate) -> Trouble {
    Trouble::Ours(Fault::machine(format_args!(
        "the step's time limit came while {} was evaluated; what is done is kept, see \
         --step-minutes",
        candidate.model.repository()
    )))
}

impl Court<ContentHash> for Bench<'_> {
    type Found = Verdict;

    async fn attempt(
        &self,
        content: ContentHash,
        next: Option<ContentHash>,
    ) -> Result<Verdict, Trouble> {
        let (round, context) = (self.round, self.context);
        let unknown = || Trouble::Ours(Fault::machine("a model is not in the field of its step"));
        let candidate = *self.candidates.get(&content).ok_or_else(unknown)?;
        let Some(Ok(tokens)) = round.tokens.get(&content) else {
            return Err(unknown());
        };
        let left = round.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(time_limit(candidate));
        }
        context.board.activity(Activity::Evaluating {
            model: candidate.model.repository(),
            competition: round.competition.id.clone(),
        });
        let next = next.and_then(|next| self.candidates.get(&next));
        let request = Evaluate {
            model: round.source(context, candidate),
            samples: tokens.samples.clone(),
            plan: tokens.packs.clone(),
            next: next.map(|next| round.source(context, next)),
        };
        let share = self.shares.get(&content).copied();
        let share = share.unwrap_or(context.settings.limit);
        let patience = TimeLimits::within(share.min(left));
        let on_progress = |_: Progress| shared::notify::watchdog();
        let evaluated = context
            .evaluator
            .evaluate(request, patience, &on_progress)
            .await;
        match evaluated {
            Ok(evaluation) => round
                .judge(context, candidate, tokens, evaluation)
                .map_err(Trouble::Ours),
            // It did not have all of its share.
            Err(EvalFault::Machine(fault))
                if fault.kind == MachineFaultKind::Hung && left < share =>
            {
                Err(time_limit(candidate))
            }
            Err(fault) => Err(Trouble::Worker(fault)),
        }
    }

    async fn judge_copy(
        &self,
        content: ContentHash,
        found: &impl std::fmt::Display,
    ) -> Result<(), Fault> {
        match self.candidates.get(&content) {
            Some(candidate) => judge_copy(self.context, candidate, found).await,
            None => Ok(()),
        }
    }

    fn suspect(&self, content: ContentHash, fault: &MachineFault) -> Result<(), Fault> {
        suspect(self.context, Work::Evaluate, content, fault)
    }

    fn passed(&self, content: ContentHash, unproven: &[ContentHash]) -> Result<(), Fault> {
        passed(self.context, Work::Evaluate, content, unproven)
    }

    fn strikes(&self, content: ContentHash) -> usize {
        strikes(self.context, Work::Evaluate, content)
    }
}
