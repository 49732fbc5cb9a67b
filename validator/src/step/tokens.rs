//! Tokens of a step: once for each tokenizer, with the packing plan all its models share.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{
    ContentHash, Conversation, Fault as EvalFault, MachineFault, MachineFaultKind, PackingPlan,
    TokenizedSample, protocol::Tokenize,
};

use super::{
    Candidate, Context, Field,
    attribution::{self, Court, Docket, Halt, Trouble, Work},
    evaluation::{self, Tokens, by_content, judge_copy},
};
use eval::TimeLimits;
use models::TokenizerPin;
use report::{status::Activity, step_record::Plan};
use samples::SampleSet;
use subnet::{Competition, Fault};

/// Tokenizing takes seconds.
const LIMIT: Duration = Duration::from_mins(5);

/// The least time that each of many tokenizers has.
const LEAST: Duration = Duration::from_secs(20);

/// A tokenizer on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenizer {
    /// Its repository on the hub.
    pub name: String,
    /// Its commit and content.
    pub pin: TokenizerPin,
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
) -> Result<TokensByContent, Halt> {
    context.board.activity(Activity::Tokenizing {
        competition: competition.id.clone(),
    });
    let conversations: Vec<Conversation> = set
        .samples
        .iter()
        .map(|sample| sample.conversation.clone())
        .collect();
    let Some(tokenizer) = fixed else {
        return own(context, field, conversations).await;
    };
    let shared = shared(context, competition, tokenizer, &conversations).await?;
    trust(context, tokenizer)?;
    let all = field.originals();
    Ok(all
        .map(|(_, candidate)| (candidate.content, Ok(Arc::clone(&shared))))
        .collect())
}

/// Tokenizes with each model's own tokenizer. One that brings down workers pays like a model that
/// does.
async fn own(
    context: &Context,
    field: &Field,
    conversations: Vec<Conversation>,
) -> Result<TokensByContent, Halt> {
    let candidates = by_content(field);
    let contents: Vec<ContentHash> = candidates.keys().copied().collect();
    let several = u32::try_from(contents.len().max(1)).unwrap_or(u32::MAX);
    let desk = Desk {
        context,
        conversations,
        limit: (context.settings.limit / several).clamp(LEAST, LIMIT),
        candidates,
    };
    let width = context.evaluator.width();
    attribution::settle(&desk, Docket::new(contents, None), width, |_| ()).await
}

/// Tokenizes with the competition's tokenizer. No miner chose it: samples that bring down its worker
/// twice are not used.
async fn shared(
    context: &Context,
    competition: &Competition,
    tokenizer: &Tokenizer,
    conversations: &[Conversation],
) -> Result<Arc<Tokens>, Halt> {
    let Tokenizer {
        name,
        pin,
        directory,
    } = tokenizer;
    let hash = pin.content.to_string();
    let mut lost = false;
    loop {
        let fault = match tokenize(context, name, &hash, directory, conversations, LIMIT).await {
            Ok(tokens) => return Ok(Arc::new(tokens)),
            Err(EvalFault::Model(fault)) => {
                return Err(Halt::Postponed(Fault::config(format_args!(
                    "the tokenizer {name} of competition {} can't be used: {fault}",
                    competition.id
                ))));
            }
            Err(EvalFault::Machine(fault)) => fault,
        };
        let provoked = fault.kind.may_be_provoked();
        if fault.kind == MachineFaultKind::TooLarge || (provoked && lost) {
            return Err(Halt::Unusable(Fault::machine(fault)));
        }
        if !provoked {
            return Err(Halt::Postponed(Fault::machine(fault)));
        }
        lost = true;
    }
}

/// Remembers that a fixed tokenizer works: nothing else is taken for it from now on.
fn trust(context: &Context, tokenizer: &Tokenizer) -> Result<(), Fault> {
    let Tokenizer { name, pin, .. } = tokenizer;
    let known = context
        .state
        .look(|state| state.tokenizers.get(name) == Some(pin));
    if !known {
        let entry = (name.clone(), pin.clone());
        context
            .state
            .update(|state| state.tokenizers.extend([entry]))?;
    }
    Ok(())
}

/// Tokenizes with the tokenizers of models.
struct Desk<'a> {
    context: &'a Context,
    conversations: Vec<Conversation>,
    /// How long each may take.
    limit: Duration,
    candidates: BTreeMap<ContentHash, &'a Candidate>,
}

impl Court<ContentHash> for Desk<'_> {
    type Found = Arc<Tokens>;

    async fn attempt(
        &self,
        content: ContentHash,
        _next: Option<ContentHash>,
    ) -> Result<Arc<Tokens>, Trouble> {
        let Some(candidate) = self.candidates.get(&content) else {
            let fault = Fault::machine("a model is not in the field of its step");
            return Err(Trouble::Ours(fault));
        };
        let hash = content.to_string();
        tokenize(
            self.context,
            &hash,
            &hash,
            &candidate.directory,
            &self.conversations,
            self.limit,
        )
        .await
        .map(Arc::new)
        .map_err(Trouble::Worker)
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
        evaluation::suspect(self.context, Work::Tokenize, content, fault)
    }

    fn passed(&self, content: ContentHash, unproven: &[ContentHash]) -> Result<(), Fault> {
        evaluation::passed(self.context, Work::Tokenize, content, unproven)
    }

    fn strikes(&self, content: ContentHash) -> usize {
        evaluation::strikes(self.context, Work::Tokenize, content)
    }
}

async fn tokenize(
    context: &Context,
    name: &str,
    hash: &str,
    directory: &Path,
    conversations: &[Conversation],
    limit: Duration,
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
        .tokenize(request, TimeLimits::within(limit), &|_| {
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
