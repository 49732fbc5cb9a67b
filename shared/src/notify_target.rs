//! Whom to tell of problems: an address, Slack, a command.
//!
//! The address is a secret (whoever has a webhook's can write there), so no log names more of it than the host.

use std::{fmt, str::FromStr};

use serde_json::{Value, json};
use url::Url;

/// Whom to tell.
#[derive(Clone, PartialEq, Eq)]
pub enum NotifyTarget {
    /// An address that takes JSON.
    Post(Url),
    /// An incoming webhook of Slack, or of what understands the same (Mattermost, Discord's `/slack`).
    Slack(Url),
    /// A shell command that reads JSON.
    Command(String),
}

/// What is to be done to tell a target.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery<'a> {
    Post {
        url: &'a Url,
        body: Value,
    },
    /// A line for the shell, and what it reads.
    Run {
        line: &'a str,
        input: String,
    },
}

impl fmt::Debug for NotifyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl FromStr for NotifyTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = |text: &str| Url::parse(text).map_err(|error| format!("not an address: {error}"));
        if let Some(hook) = text.strip_prefix("slack:") {
            return Ok(Self::Slack(url(hook)?));
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Post(url(text)?));
        }
        if text.trim().is_empty() {
            return Err("an address, slack:ADDRESS or a command".to_owned());
        }
        Ok(Self::Command(text.to_owned()))
    }
}

impl NotifyTarget {
    /// What a log may say of it.
    pub fn name(&self) -> String {
        let host = |url: &Url| url.host_str().unwrap_or("?").to_owned();
        match self {
            Self::Post(url) => host(url),
            Self::Slack(url) => format!("Slack at {}", host(url)),
            Self::Command(line) => line.split_whitespace().next().unwrap_or("").to_owned(),
        }
    }

    /// Returns how it is told of a message; `sentence` is the message as people read it.
    pub fn delivery(&self, message: Value, sentence: &str) -> Delivery<'_> {
        match self {
            Self::Post(url) => Delivery::Post { url, body: message },
            Self::Slack(url) => Delivery::Post {
                url,
                body: json!({ "text": escaped(sentence) }),
            },
            Self::Command(line) => Delivery::Run {
                line,
                input: message.to_string(),
            },
        }
    }
}

/// Slack's markup has three characters; texts of strangers must not mention channels or hide links.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_log_has_the_secret_part_of_an_address() {
        let target: NotifyTarget = "slack:https://hooks.slack.com/services/T0/B0/secret"
            .parse()
            .unwrap();
        assert_eq!(format!("{target:?}"), "Slack at hooks.slack.com");
        assert!("slack:nothing".parse::<NotifyTarget>().is_err());
        assert!(" ".parse::<NotifyTarget>().is_err());
    }

    #[test]
    fn slack_gets_a_text_without_markup_and_the_others_the_message() {
        let delivery = |target: &str| {
            let target: NotifyTarget = target.parse().unwrap();
            match target.delivery(json!({"cause": "twin"}), "<!channel> & more") {
                Delivery::Post { body, .. } => body.to_string(),
                Delivery::Run { line, input } => format!("{line}: {input}"),
            }
        };
        assert_eq!(
            delivery("slack:https://hooks.example/x"),
            r#"{"text":"&lt;!channel&gt; &amp; more"}"#
        );
        assert_eq!(delivery("https://hooks.example/x"), r#"{"cause":"twin"}"#);
        assert_eq!(delivery("mail me"), r#"mail me: {"cause":"twin"}"#);
    }
}
