//! The fixed tokenizers of the competitions, and what is to be told of them.

use std::collections::BTreeMap;

use shared::status::Health;

use super::library::Library;
use crate::{state::State, step::Tokenizer};
use models::Tokenizers;
use report::board::Alarm;
use subnet::{Fault, FixedTokenizer};

/// Finds fixed tokenizers, and says of each whether another than the wanted one is in use.
#[derive(Debug)]
pub(super) struct TokenizerWatch {
    alarm: Alarm,
    problems: BTreeMap<String, String>,
}

impl TokenizerWatch {
    pub(super) const fn new(alarm: Alarm) -> Self {
        Self {
            alarm,
            problems: BTreeMap::new(),
        }
    }

    /// Returns the tokenizer of a competition: what the subnet file pins, else what worked before.
    pub(super) async fn find(
        &mut self,
        library: &Library,
        wanted: &FixedTokenizer,
        state: &State,
    ) -> Result<Tokenizer, Fault> {
        let tokenizers = Tokenizers {
            hub: Some(&library.hub),
            store: &library.store,
            compatibility: library.compatibility,
        };
        let trusted = state.tokenizers.get(&wanted.repository);
        let found = tokenizers.find(wanted, trusted).await?;
        self.note(&wanted.repository, found.problem);
        Ok(Tokenizer {
            name: wanted.repository.clone(),
            pin: found.pin,
            directory: found.dir,
        })
    }

    fn note(&mut self, repository: &str, problem: Option<String>) {
        match problem {
            Some(problem) => self.problems.insert(repository.to_owned(), problem),
            None => self.problems.remove(repository),
        };
        if self.problems.is_empty() {
            return self.alarm.end();
        }
        let problems: Vec<&str> = self.problems.values().map(String::as_str).collect();
        self.alarm.raise(Health::Yellow, problems.join("; "));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use report::{board::Board, status::Details};

    use super::*;

    #[test]
    fn each_repository_is_told_until_it_is_well() {
        let (board, alarms) = Board::new(Details::default());
        let told = || board.status("test", Duration::ZERO).problems.join("; ");
        let mut watch = TokenizerWatch::new(alarms.tokenizer);
        watch.note("a/a", Some("a changed".to_owned()));
        watch.note("b/b", Some("b changed".to_owned()));
        assert_eq!(told(), "a changed; b changed");
        watch.note("a/a", None);
        assert_eq!(told(), "b changed");
        watch.note("b/b", None);
        assert_eq!(told(), "");
    }
}
