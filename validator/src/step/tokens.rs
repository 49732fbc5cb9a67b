//! Tokens of a step: once for each tokenizer, with the packing plan all its models share.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{
    ContentHash, Conversation, Fault as EvalFault, PackingPlan, TokenizedSample, protocol::Tokenize,
};

use super::{
    Context, Field,
    evaluation::{Tokens, judge_copy},
};
use eval::TimeLimits;
use report::{status::Activity, step_record::Plan};
use samples::SampleSet;
use subnet::{Competition, Fault};

/// Tokenising takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// A tokenizer on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenizer {
    pub name: String,
    pub hash: String,
    pub directory: PathBuf,
}

/// Tokens for each model, by content; or why its tokenizer gives none.
pub(super) type TokensByContent = BTreeMap<ContentHash, Result<Arc<Tokens>, Fault>>;

/// Tokenizes the sample set: once with the competition's tokenizer, or with each model's own.
pub(super) async fn of_field(
    context: &Context,
    competition: &Competition,
    fixed: Option<&Tokenizer>,
    field: &Field,
    set: &SampleSet,
) -> Result<TokensByContent, Fault> {
    context.board.activity(Activity::Tokenizing {
        competition: competition.id.clone(),
    });
    let conversations: Vec<Conversation> = set
        .samples
        .iter()
        .map(|sample| sample.conversation.clone())
        .collect();
    let mut tokens = BTreeMap::new();
    let Some(tokenizer) = fixed else {
        for (_, candidate) in field.originals() {
            let hash = candidate.content.to_string();
            let own = tokenize(context, &hash, &hash, &candidate.directory, &conversations).await;
            if let Err(fault) = &own {
                judge_copy(context, candidate, fault).await?;
            }
            let own = match own {
                Err(EvalFault::Machine(fault)) => return Err(Fault::machine(fault)),
                own => own.map(Arc::new).map_err(Fault::from),
            };
            tokens.insert(candidate.content, own);
        }
        return Ok(tokens);
    };
    let Tokenizer {
        name,
        hash,
        directory,
    } = tokenizer;
    let shared = tokenize(context, name, hash, directory, &conversations)
        .await
        .map(Arc::new)
        .map_err(|fault| match fault {
            EvalFault::Machine(fault) => Fault::machine(fault),
            // No miner chose this tokenizer.
            EvalFault::Model(fault) => Fault::config(format_args!(
                "the tokenizer {name} of competition {} can't be used: {fault}",
                competition.id
            )),
        })?;
    for (_, candidate) in field.originals() {
        tokens.insert(candidate.content, Ok(Arc::clone(&shared)));
    }
    Ok(tokens)
}

async fn tokenize(
    context: &Context,
    name: &str,
    hash: &str,
    directory: &Path,
    conversations: &[Conversation],
) -> Result<Tokens, EvalFault> {
    let settings = &context.settings;
    let request = Tokenize {
        directory: directory.to_owned(),
        compatibility: settings.parameters.compatibility,
        sequence_length: settings.parameters.sequence_length,
        conversations: conversations.to_vec(),
    };
    let samples = context
        .evaluator
        .tokenize(request, TimeLimits::within(LIMIT), &|_| {
            shared::notify::watchdog();
        })
        .await?;
    let packs = PackingPlan::new(&samples, settings.pack_tokens);
    let count = |sample: &TokenizedSample| sample.ids.len() as u64;
    let plan = Plan {
        tokenizer: name.to_owned(),
        digest: packs.digest(),
        tokens: samples.iter().map(count).sum(),
    };
    Ok(Tokens {
        tokenizer: hash.to_owned(),
        samples,
        packs,
        plan,
    })
}
