//! How single values are shown.

use jiff::Timestamp;
use shared::{clock, term};

use subnet::Real;

/// The longest text of a miner in a table; the JSON has all of it.
const MAX_SHOWN: usize = 100;

/// A text that a miner, a hub or a node wrote.
pub(super) fn text(text: &str) -> String {
    term::printable(text, MAX_SHOWN)
}

/// `namespace/name` of a commitment.
pub(super) fn repository(model: &str) -> String {
    let name: Vec<&str> = model.splitn(3, ':').take(2).collect();
    text(&name.join("/"))
}

pub(super) fn loss(value: Real) -> String {
    match value.0 {
        value if value.is_finite() && value.abs() < 1e9 => format!("{value:.4}"),
        value if value.is_nan() => "nan".to_owned(),
        _ => "inf".to_owned(),
    }
}

pub(super) fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// How a number moved: `0.5000 -> 0.4000`; only one of them where it did not, or is alone.
pub(super) fn moved(before: Option<String>, after: Option<String>) -> String {
    match (before, after) {
        (Some(before), Some(after)) if before == after => after,
        (Some(before), Some(after)) => format!("{before} -> {after}"),
        (None, Some(after)) => format!("- -> {after}"),
        (Some(before), None) => format!("{before} -> -"),
        (None, None) => "-".to_owned(),
    }
}

/// The change of a rank, as tables of leagues have it.
pub(super) fn rank_change(before: Option<u32>, now: Option<u32>) -> String {
    match (before, now) {
        (Some(before), Some(now)) if before > now => format!("up {}", before - now),
        (Some(before), Some(now)) if before < now => format!("down {}", now - before),
        (Some(_), Some(_)) => "same".to_owned(),
        (None, Some(_)) => "new".to_owned(),
        (_, None) => "-".to_owned(),
    }
}

/// A time and how long ago that is.
pub(super) fn when(at: Timestamp) -> String {
    format!("{} ({})", at.strftime("%F %T UTC"), ago(at))
}

pub(super) fn ago(at: Timestamp) -> String {
    let seconds = clock::now().duration_since(at).as_secs();
    match seconds {
        i64::MIN..0 => "in the future".to_owned(),
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
