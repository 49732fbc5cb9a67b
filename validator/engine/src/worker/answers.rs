//! How each request is answered.

use std::time::Instant;

use candle_core::Device;
use model::{
    Fault, MachineFaultKind,
    protocol::{
        Answer, Compare, Counters, Evaluate, Evaluation, Generate, Generation, Phase, Tokenize,
    },
};

use super::{
    Channel,
    resident::{Residents, read_spec},
};
use crate::{generate, loss, reference, tokenize::ChatTokenizer};

/// Conversations without tokens that are named one by one.
const MAX_NAMED: usize = 8;

pub(super) fn tokenize(channel: &Channel, request: &Tokenize) -> Result<Answer, Fault> {
    let reporter = channel.progress(Phase::Tokenize, request.conversations.len() as u64);
    reporter.set(0);
    let tokenizer = ChatTokenizer::load(&request.directory, request.compatibility)?;
    let done = || reporter.add(1);
    let (samples, refused) =
        tokenizer.tokenize(&request.conversations, request.sequence_length, &done)?;
    for refused in refused.iter().take(MAX_NAMED) {
        tracing::warn!("has no tokens: {refused}");
    }
    if refused.len() > MAX_NAMED {
        tracing::warn!(conversations = refused.len(), "have no tokens in all");
    }
    Ok(Answer::Tokenized(samples))
}

pub(super) fn evaluate(
    channel: &Channel,
    residents: &mut Residents,
    request: &Evaluate,
) -> Result<Answer, Fault> {
    let Evaluate {
        model: source,
        samples,
        plan,
        next,
    } = request;
    if !plan.covers(samples.len()) {
        return Err(Fault::machine(
            MachineFaultKind::Bug,
            "the plan is not for these samples",
        ));
    }
    let tokens = samples.iter().map(|sample| sample.ids.len() as u64).sum();
    let evaluation = residents.with(channel, source, next.as_ref(), |resident| {
        let reporter = channel.progress(Phase::Evaluate, tokens);
        reporter.set(0);
        let begun = Instant::now();
        let progress = |more| reporter.add(more);
        let rounding = loss::Rounding::default();
        let computed = loss::evaluate(&resident.copies, samples, plan, rounding, progress)?;
        Ok(Evaluation {
            losses: computed.losses,
            content_hash: resident.content_hash,
            parameters: resident.parameters,
            norms_refused: resident.norms_refused.clone(),
            warnings: resident.warnings.clone(),
            counters: Counters {
                bytes_read: resident.bytes_read,
                ..computed.counters
            },
            load_seconds: resident.load_seconds,
            compute_seconds: begun.elapsed().as_secs_f64(),
        })
    })?;
    Ok(Answer::Evaluated(Box::new(evaluation)))
}

pub(super) fn compare(
    channel: &Channel,
    devices: &[Device],
    request: &Compare,
) -> Result<Answer, Fault> {
    let Compare { model, samples } = request;
    let tokens = samples.iter().map(|sample| sample.ids.len() as u64).sum();
    let reporter = channel.progress(Phase::Evaluate, tokens);
    reporter.set(0);
    let spec = read_spec(model)?;
    let progress = |more| reporter.add(more);
    // It knows one device only.
    let device = devices.first().unwrap_or(&Device::Cpu);
    reference::of_directory(&model.directory, &spec, samples, device, &progress)
        .map(Answer::Compared)
}

pub(super) fn generate(
    channel: &Channel,
    residents: &mut Residents,
    request: &Generate,
) -> Result<Answer, Fault> {
    let Generate {
        model: source,
        tokenizer,
        conversation,
        max_tokens,
        seed,
    } = request;
    let tokenizer = ChatTokenizer::load(tokenizer, source.compatibility)?;
    let prompt = tokenizer.prompt(conversation, *max_tokens)?;
    let options = generate::Options {
        max_tokens: *max_tokens,
        seed: *seed,
        stop: tokenizer.end_of_text().into_iter().collect(),
        ..generate::Options::default()
    };
    let answer = residents.with(channel, source, None, |resident| {
        let reporter = channel.progress(Phase::Generate, *max_tokens as u64);
        reporter.set(prompt.len() as u64);
        let Some(model) = resident.copies.first() else {
            return Err(Fault::machine(MachineFaultKind::Bug, "a model was lost"));
        };
        generate::generate(model, &prompt, &options, || reporter.add(1))
    })?;
    let text = tokenizer.decode(&answer)?;
    Ok(Answer::Generated(Generation {
        text,
        tokens: answer.len() as u64,
    }))
}
