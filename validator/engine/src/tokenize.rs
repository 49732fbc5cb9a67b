//! Conversations to token ids, as transformers' `apply_chat_template` gives them.

mod added;
mod backend;
mod bounds;
mod current;
mod directory;
mod sentencepiece;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use model::{
    Compatibility, Conversation, Fault, MachineFaultKind, Message, ModelFaultKind, TokenizedSample,
};
use rayon::prelude::*;
use shared::task::panic_message;
use tokenizers::Tokenizer;

use self::{added::SpecialTokens, bounds::Growth, directory::Directory};
use crate::template::Template;

/// Words with their ids, and merges.
type Vocabulary = (Vec<(String, u32)>, Vec<(String, String)>);

/// A tokenizer with its chat template.
#[derive(Debug)]
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    template: Template,
    /// What its normalizer makes of a text.
    growth: Growth,
    /// Whether a sequence that is too long loses its beginning instead of its end.
    cut_left: bool,
    end_of_text: Option<u32>,
}

impl ChatTokenizer {
    /// Loads the tokenizer of a directory, as transformers would.
    pub fn load(directory: &Path, compatibility: Compatibility) -> Result<Self, Fault> {
        guarded(|| Self::read(directory, compatibility))
    }

    fn read(directory: &Path, compatibility: Compatibility) -> Result<Self, Fault> {
        let directory = Directory::open(directory, compatibility)?;
        let template = directory.chat_template()?;
        // Nothing is padded here, but a release looks at it.
        directory.side("padding_side")?;
        let (mut tokenizer, variables, end_of_text, cut_left) = match compatibility {
            Compatibility::V4_40 => {
                let mut tokenizer = backend::build(&directory)?;
                let special = SpecialTokens::of(&directory)?;
                special.check(&directory)?;
                special.add_to(&mut tokenizer, &directory)?;
                let cut_left = directory.cuts_left(&tokenizer)?;
                let end = special.end_of_text().map(ToOwned::to_owned);
                (tokenizer, special.variables(), end, cut_left)
            }
            Compatibility::Current => {
                let current = current::build(&directory)?;
                let end = current.end_of_text().map(ToOwned::to_owned);
                let (variables, cut_left) = (current.variables(), current.cut_left);
                let mut tokenizer = current.tokenizer;
                let split = current::flag(&directory, "split_special_tokens", false)?;
                tokenizer.set_encode_special_tokens(split);
                (tokenizer, variables, end, cut_left)
            }
        };
        // The caller's limit holds, whatever the file says.
        tokenizer.with_truncation(None).map_err(refused)?;
        tokenizer.with_padding(None);
        let end_of_text = end_of_text.and_then(|token| tokenizer.token_to_id(&token));
        let template = Template::compile(&template, variables, compatibility)?;
        let growth = Growth::of(tokenizer.get_normalizer()).map_err(refused)?;
        Ok(Self {
            tokenizer,
            template,
            growth,
            cut_left,
            end_of_text,
        })
    }

    /// Tokenizes conversations in parallel; samples come in their order, cut to `max_tokens`.
    /// `on_done` is called once for each, from any thread. A conversation that the template or the
    /// tokenizer refuses becomes a sample without tokens, which has no loss, and is named in the
    /// second list.
    ///
    /// # Errors
    /// The machine's, and the tokenizer's where it refuses all of them.
    pub fn tokenize(
        &self,
        conversations: &[Conversation],
        max_tokens: usize,
        on_done: &(dyn Fn() + Sync),
    ) -> Result<(Vec<TokenizedSample>, Vec<String>), Fault> {
        let sample = |conversation: &Conversation| {
            let ids = self.encode(&conversation.messages, false, max_tokens)?;
            let prompt = self.encode(conversation.prompt(), true, max_tokens)?;
            Ok(TokenizedSample {
                ids,
                prompt_len: prompt.len(),
            })
        };
        let done = |conversation: &Conversation| {
            let sample = sample(conversation);
            on_done();
            match sample {
                Err(fault @ Fault::Machine(_)) => Err(fault),
                sample => Ok(sample),
            }
        };
        let outcomes: Vec<Result<_, Fault>> = on_own_threads(rayon::current_num_threads(), || {
            conversations.par_iter().map(done).collect()
        })?;
        if let Some(Err(first)) = outcomes.first()
            && outcomes.iter().all(Result::is_err)
        {
            return Err(first.clone());
        }
        let mut refused = Vec::new();
        let samples = outcomes.into_iter().enumerate();
        let samples = samples.map(|(index, outcome)| {
            outcome.unwrap_or_else(|fault| {
                refused.push(format!("conversation {}: {fault}", index + 1));
                TokenizedSample::default()
            })
        });
        Ok((samples.collect(), refused))
    }

    /// Returns the ids of a prompt, ready for an answer.
    pub fn prompt(
        &self,
        conversation: &Conversation,
        max_tokens: usize,
    ) -> Result<Vec<u32>, Fault> {
        on_own_threads(1, || self.encode(conversation.prompt(), true, max_tokens))
    }

    /// Renders turns and returns their ids. The template writes the special tokens, so none are
    /// added again.
    fn encode(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        max_tokens: usize,
    ) -> Result<Vec<u32>, Fault> {
        guarded(|| {
            let text = self.template.render(messages, add_generation_prompt)?;
            let said = messages
                .iter()
                .map(|turn| turn.role.len() + turn.content.len());
            bounds::check_rendered(&text, said.sum())?;
            self.growth.admit(&text)?;
            let encoding = self.tokenizer.encode_fast(text, false).map_err(refused)?;
            let ids = encoding.get_ids();
            let surplus = ids.len().saturating_sub(max_tokens);
            let kept = if self.cut_left {
                &ids[surplus..]
            } else {
                &ids[..ids.len() - surplus]
            };
            Ok(kept.to_vec())
        })
    }

    /// Returns the text of turns before it is tokenized.
    pub fn render(&self, messages: &[Message], generation_prompt: bool) -> Result<String, Fault> {
        self.template.render(messages, generation_prompt)
    }

    /// Returns the text of token ids, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Fault> {
        guarded(|| self.tokenizer.decode(ids, true).map_err(refused))
    }

    /// Returns the id of the token that ends a text, if the tokenizer names one.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }
}

/// Calls libraries that do not expect to be lied to: their panics are faults of the tokenizer.
fn guarded<T>(call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let message = panic_message(&*panic);
        Err(refused(format_args!("panic: {message}")))
    })
}

/// Works on threads that end with the work. The library keeps a cache of words in every thread,
/// for every tokenizer the thread ever met; only the end of the thread frees it.
fn on_own_threads<T: Send>(
    threads: usize,
    work: impl FnOnce() -> Result<T, Fault> + Send,
) -> Result<T, Fault> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(crate::STACK)
        .build()
        .map_err(|error| Fault::machine(MachineFaultKind::OutOfMemory, error))?
        .install(work)
}

/// Makes a fault of the tokenizer of anything that can be shown.
fn refused(error: impl fmt::Display) -> Fault {
    Fault::model(ModelFaultKind::Tokenizer, error)
}
