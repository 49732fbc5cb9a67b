//! Files that older directories offer by version.

use super::TokenizerClassError;

/// Returns which of the files `stem.X.Y.Z.json` takes the place of `stem.json` (`config` or
/// `tokenizer`): the newest of at most version 4.40.0, or `None`.
///
/// Versions are walked in the order of their *text* up to the first one too new, as the Python
/// validator does: beside a `4.5.0` a `4.39.0` is used, and not the former.
pub fn newest_accepted<'a>(
    stem: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Option<&'a str>, TokenizerClassError> {
    let mut versions = std::collections::BTreeMap::new();
    let dotted = format!("{stem}.");
    for name in names {
        let Some(start) = name.find(&dotted) else {
            continue;
        };
        let rest = &name[start + dotted.len()..];
        if let Some(end) = rest.rfind(".json") {
            versions.insert(&rest[..end], name);
        }
    }
    let mut newest = None;
    for (version, name) in versions {
        if !at_most_4_40_0(version)? {
            break;
        }
        newest = Some(name);
    }
    Ok(newest)
}

fn at_most_4_40_0(version: &str) -> Result<bool, TokenizerClassError> {
    let bad = || TokenizerClassError::BadVersion(version.to_owned());
    let text = version.trim().trim_start_matches(['v', 'V']);
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (release, suffix) = text.split_at(digits);
    let release = release
        .strip_suffix('.')
        .filter(|_| !suffix.is_empty())
        .unwrap_or(release);
    let mut numbers: Vec<u64> = release
        .split('.')
        .map(|number| number.parse().map_err(|_| bad()))
        .collect::<Result<_, _>>()?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    let suffix = suffix
        .trim_start_matches(['-', '_', '.'])
        .to_ascii_lowercase();
    let earlier = ["a", "b", "c", "rc", "dev", "pre"]
        .iter()
        .any(|mark| suffix.starts_with(mark));
    let later = ["post", "rev", "r", "+"]
        .iter()
        .any(|mark| suffix.starts_with(mark))
        && !earlier;
    match numbers.as_slice().cmp(&[4, 40]) {
        _ if !suffix.is_empty() && !earlier && !later => Err(bad()),
        std::cmp::Ordering::Equal => Ok(!later),
        order => Ok(order.is_lt()),
    }
}
