//! What a bundle must not hold, by rules: better a word too many taken out than one too few.

use std::{env, path::PathBuf};

use regex::Regex;

/// Takes out what is secret or personal.
#[derive(Debug)]
pub(super) struct Redactor {
    /// Texts of this machine, the longest first.
    words: Vec<(String, &'static str)>,
    rules: Vec<(Regex, &'static str)>,
}

/// What to look for, and what stands in its place.
const RULES: [(&str, &str); 10] = [
    // Tokens by their form: Hugging Face, GitHub, Slack, JSON web tokens.
    (
        r"\b(?:hf_|gh[pousr]_|github_pat_|xox[abprs]-)[A-Za-z0-9_-]{6,}",
        "[token]",
    ),
    (
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+",
        "[token]",
    ),
    // What is called a secret, in JSON, in flags and in variables.
    (
        r#"(?i)\b([a-z_.-]*(?:token|password|passwd|secret|secret_key|private_key|api[_-]?key|mnemonic|authorization))\b("?\s*[:=]\s*"?)(?:bearer\s+)?[^\s",}]+"#,
        "$1$2[secret]",
    ),
    (
        r"(?i)(--[a-z._-]*(?:token|key|password|secret))[= ]\S+",
        "$1 [secret]",
    ),
    // Webhooks and credentials in addresses, and what follows `?`.
    (r"https?://hooks\.[^\s\x22']+", "[webhook]"),
    (r"(?i)([a-z][a-z0-9+.-]*://)[^/\s@\x22]+@", "$1[login]@"),
    (
        r"(?i)([a-z][a-z0-9+.-]*://[^\s?\x22']+)\?[^\s\x22']*",
        "$1?[query]",
    ),
    (r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}", "[e-mail]"),
    // A seed looks like a hash: eight digits tell hashes apart, and give no key away.
    (r"\b((?:0x)?[0-9a-fA-F]{8})[0-9a-fA-F]{24,}\b", "$1.."),
    (r"\b(?:\d{1,3}\.){3}\d{1,3}\b", "[ip]"),
];

/// Addresses that tell nothing.
const LOCAL: [&str; 3] = ["127.0.0.1", "0.0.0.0", "255.255.255.255"];

impl Redactor {
    /// Knows the names of this user and machine.
    pub(super) fn of_this_machine() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the command line reads the environment"
        )]
        let variable = |name: &str| env::var(name).ok();
        let home = env::home_dir().map(PathBuf::into_os_string);
        let home = home.and_then(|home| home.into_string().ok());
        let host = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok());
        Self::new([
            (home, "~"),
            (variable("USER"), "[user]"),
            (variable("LOGNAME"), "[user]"),
            (host, "[host]"),
        ])
    }

    fn new(words: impl IntoIterator<Item = (Option<String>, &'static str)>) -> Self {
        let mut words: Vec<(String, &str)> = words
            .into_iter()
            .filter_map(|(word, instead)| Some((word?, instead)))
            // `root` and names of one or two letters are in every other word.
            .filter(|(word, _)| word.len() > 2 && word != "root" && word != "localhost")
            .collect();
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        let rules = RULES
            .iter()
            .filter_map(|(pattern, instead)| Some((Regex::new(pattern).ok()?, *instead)));
        Self {
            words,
            rules: rules.collect(),
        }
    }

    pub(super) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (rule, instead) in &self.rules {
            text = if *instead == "[ip]" {
                let replace = |found: &regex::Captures<'_>| {
                    let address = &found[0];
                    if LOCAL.contains(&address) {
                        address
                    } else {
                        "[ip]"
                    }
                    .to_owned()
                };
                rule.replace_all(&text, replace).into_owned()
            } else {
                rule.replace_all(&text, *instead).into_owned()
            };
        }
        for (word, instead) in &self.words {
            text = text.replace(word, instead);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_a_pattern() {
        assert_eq!(Redactor::new([]).rules.len(), RULES.len());
    }

    #[test]
    fn secrets_and_names_go_and_what_explains_faults_stays() {
        let redactor = Redactor::new([
            (Some("/home/ada".to_owned()), "~"),
            (Some("ada".to_owned()), "[user]"),
            (Some("engine-1".to_owned()), "[host]"),
        ]);
        let seed = "b".repeat(56);
        let text = format!(
            "hf_abcdefghij HF_TOKEN=hf_zzzzzzzzz --wandb-key 12 \"api_key\": \"s3cr3t\", password: hunter2\n\
             Authorization: Bearer abc.def https://user:pw@example.org/x?sig=1 ada@example.org\n\
             https://hooks.slack.com/services/T/B/C 10.1.2.3 127.0.0.1:9944 0xaaaaaaaa{seed}\n\
             /home/ada/.bittensor engine-1 5C62Ck4UrFPiBtoCmeSrgF7x9yv9mn38446dhCpsi2mLHiFT step 17 loss 1.25"
        );
        let shown = redactor.redact(&text);
        for gone in [
            "hf_", "s3cr3t", "hunter2", "abc.def", "user:pw", "sig=1", "ada", "services",
            "10.1.2.3", "bbbb", "engine-1",
        ] {
            assert!(!shown.contains(gone), "{gone} is in\n{shown}");
        }
        for stays in [
            "127.0.0.1:9944",
            "0xaaaaaaaa..",
            "~/.bittensor",
            "5C62Ck4UrFPiBtoCmeSrgF7x9yv9mn38446dhCpsi2mLHiFT",
            "step 17 loss 1.25",
            "https://[login]@example.org/x?[query]",
        ] {
            assert!(shown.contains(stays), "{stays} is not in\n{shown}");
        }
    }
}
