//! Answers for people to read (`--do_sample`): each model answers one prompt of the sample set.

use std::{collections::BTreeMap, time::Duration};

use model::{ContentHash, Conversation, Message, protocol::Generate};

use super::{
    Context, Field, StepStart,
    evaluation::{Round, Verdict},
};
use eval::TimeLimits;
use report::step_record::Generated;
use samples::SampleSet;
use subnet::Uid;

/// An answer that takes longer is given up.
const LIMIT: Duration = Duration::from_secs(120);

/// The most tokens of prompt and answer together, as the Python validator has it.
const MAX_TOKENS: usize = 2048;

/// Lets every model that has losses answer the same prompt. What goes wrong costs nobody anything.
pub(super) async fn of_field(
    context: &Context,
    start: &StepStart,
    round: &Round<'_>,
    field: &Field,
    set: &SampleSet,
    verdicts: &BTreeMap<ContentHash, Verdict>,
) -> BTreeMap<Uid, Generated> {
    let mut answers = BTreeMap::new();
    let index = usize::try_from(start.open.step).unwrap_or(0) % set.samples.len().max(1);
    let Some(sample) = set.samples.get(index) else {
        return answers;
    };
    let (prompt, truth) = (
        text(sample.conversation.prompt()),
        last(&sample.conversation),
    );
    for (uid, candidate) in field.originals() {
        if !matches!(verdicts.get(&candidate.content), Some(Ok(_))) {
            continue;
        }
        let fixed = start
            .tokenizer
            .as_ref()
            .map(|tokenizer| &tokenizer.directory);
        let request = Generate {
            model: round.source(context, candidate),
            tokenizer: fixed.unwrap_or(&candidate.directory).clone(),
            conversation: sample.conversation.clone(),
            max_tokens: MAX_TOKENS,
            seed: start.open.seed,
        };
        let patience = TimeLimits::within(LIMIT);
        let progress = |_| shared::notify::watchdog();
        match context
            .evaluator
            .generate(request, patience, &progress)
            .await
        {
            Ok(generation) => {
                tracing::info!(%uid, prompt, answer = generation.text, "sampled an answer");
                let answer = Generated {
                    prompt: prompt.clone(),
                    response: generation.text,
                    truth: truth.clone(),
                };
                answers.insert(uid, answer);
            }
            Err(fault) => tracing::warn!(%uid, %fault, "could not sample an answer"),
        }
    }
    answers
}

fn text(turns: &[Message]) -> String {
    let turns: Vec<&str> = turns.iter().map(|turn| turn.content.as_str()).collect();
    turns.join("\n")
}

fn last(conversation: &Conversation) -> String {
    let last = conversation.messages.last();
    last.map_or_else(String::new, |turn| turn.content.clone())
}
