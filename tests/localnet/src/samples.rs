//! Conversations made up by rule, so that a tiny model learns to predict them within seconds and
//! a longer-trained one predicts them better.

use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `user` or `assistant`.
    pub role: String,
    pub content: String,
}

/// A question and its answer, in the neutral shape every reader of chat data accepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Names it among all others.
    pub id: String,
    pub messages: Vec<Message>,
    pub source: String,
    /// When it was made, in seconds since 1970.
    pub ts: f64,
}

impl Conversation {
    pub fn prompt(&self) -> &str {
        self.messages.first().map_or("", |message| &message.content)
    }

    pub fn response(&self) -> &str {
        self.messages.last().map_or("", |message| &message.content)
    }
}

const NUMBERS: [&str; 20] = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const TRADES: [(&str, &str, &str); 8] = [
    ("baker", "oven", "bread"),
    ("potter", "wheel", "bowls"),
    ("weaver", "loom", "cloth"),
    ("smith", "anvil", "horseshoes"),
    ("printer", "press", "newspapers"),
    ("gardener", "spade", "vegetables"),
    ("carpenter", "plane", "chairs"),
    ("glazier", "diamond cutter", "windows"),
];
const NAMES: [&str; 10] = [
    "Ada", "Bela", "Carlo", "Dina", "Edgar", "Fatima", "Goran", "Hana", "Ivo", "Jana",
];
const CITIES: [(&str, &str); 8] = [
    ("Oslo", "Norway"),
    ("Lima", "Peru"),
    ("Cairo", "Egypt"),
    ("Hanoi", "Vietnam"),
    ("Quito", "Ecuador"),
    ("Vienna", "Austria"),
    ("Nairobi", "Kenya"),
    ("Lisbon", "Portugal"),
];

/// Makes `count` conversations; the same seed makes the same ones. Another seed makes others of
/// the same kind: train on one, judge on the other.
pub fn generate(seed: u64, count: usize) -> Vec<Conversation> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|index| {
            let (prompt, response) = exchange(&mut random);
            let message = |role: &str, content| Message {
                role: role.to_owned(),
                content,
            };
            Conversation {
                id: format!("localnet/{seed}/{index}"),
                messages: vec![message("user", prompt), message("assistant", response)],
                source: "localnet".to_owned(),
                ts: 1_715_000_000.0 + index as f64,
            }
        })
        .collect()
}

fn exchange(random: &mut ChaCha8Rng) -> (String, String) {
    match random.random_range(0..5) {
        0 => count_up(random),
        1 => days_after(random),
        2 => trade(random),
        3 => journey(random),
        _ => reversed(random),
    }
}

fn pick<T: Copy>(random: &mut ChaCha8Rng, from: &[T]) -> T {
    *from.choose(random).expect("the lists above are not empty")
}

fn count_up(random: &mut ChaCha8Rng) -> (String, String) {
    let first = random.random_range(0..NUMBERS.len() - 6);
    let last = first + random.random_range(3..6);
    let words = NUMBERS[first..=last].join(", ");
    (
        format!("Please count from {} to {}.", NUMBERS[first], NUMBERS[last]),
        format!(
            "Here we go: {words}. That makes {} numbers.",
            NUMBERS[last - first]
        ),
    )
}

fn days_after(random: &mut ChaCha8Rng) -> (String, String) {
    let today = random.random_range(0..7);
    let ahead = random.random_range(1..7);
    let path: Vec<&str> = (1..=ahead).map(|step| DAYS[(today + step) % 7]).collect();
    let days = if ahead == 1 { "day" } else { "days" };
    (
        format!(
            "Today is {}. Which day is it in {} {days}?",
            DAYS[today],
            NUMBERS[ahead - 1]
        ),
        format!(
            "After {} comes {}, so it will be {}.",
            DAYS[today],
            path.join(", then "),
            DAYS[(today + ahead) % 7]
        ),
    )
}

fn trade(random: &mut ChaCha8Rng) -> (String, String) {
    let (name, (trade, tool, product)) = (pick(random, &NAMES), pick(random, &TRADES));
    let verb = pick(random, &["makes", "sells", "repairs"]);
    (
        format!("{name} is a {trade}. What does {name} work with, and what for?"),
        format!("As a {trade}, {name} works with the {tool} and {verb} {product}."),
    )
}

fn journey(random: &mut ChaCha8Rng) -> (String, String) {
    let name = pick(random, &NAMES);
    let ((from, home), (to, country)) = (pick(random, &CITIES), pick(random, &CITIES));
    (
        format!("{name} travels from {from} to {to}. Which countries does {name} see?"),
        format!(
            "The journey begins in {home}, because {from} is the capital of {home}, and it ends \
             in {country}, because {to} is the capital of {country}."
        ),
    )
}

fn reversed(random: &mut ChaCha8Rng) -> (String, String) {
    let words: Vec<&str> = (0..random.random_range(3..6))
        .map(|_| pick(random, &TRADES).1)
        .collect();
    let backwards: Vec<&str> = words.iter().rev().copied().collect();
    (
        format!("Say this list backwards: {}.", words.join(", ")),
        format!("Backwards it reads: {}.", backwards.join(", ")),
    )
}

/// Writes conversations as JSON lines.
pub fn to_jsonl(conversations: &[Conversation]) -> String {
    conversations
        .iter()
        .fold(String::new(), |mut text, conversation| {
            text.push_str(&serde_json::to_string(conversation).unwrap_or_default());
            text.push('\n');
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_set_of_conversations() {
        let first = generate(1, 200);
        assert_eq!(first, generate(1, 200));
        let second = generate(2, 200);
        let repeated = first
            .iter()
            .filter(|c| second.iter().any(|d| d.messages == c.messages));
        assert!(
            repeated.count() < 100,
            "the seeds must differ in most of their content"
        );
        let lines = to_jsonl(&first);
        let back: Conversation = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!(back, first[0]);
    }
}
