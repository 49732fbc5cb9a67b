//! What headers of an answer say: texts, and how long to wait before the next request.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, RETRY_AFTER};
use shared::clock;

/// A server that asks for more is asked again after this.
const LONGEST_REQUESTED: Duration = Duration::from_hours(24);

/// Returns a header as text.
pub(crate) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Returns how long a server asks us to wait: by `Retry-After`, or by the hub's `RateLimit`.
pub(crate) fn requested_pause(headers: &HeaderMap) -> Option<Duration> {
    let retry_after = text(headers, &RETRY_AFTER);
    let rate_limit = || text(headers, &HeaderName::from_static("ratelimit"));
    let pause = match retry_after.and_then(|value| parse_retry_after(&value)) {
        Some(pause) => Some(pause),
        None => rate_limit().and_then(|value| parse_rate_limit(&value)),
    };
    pause.map(|pause| pause.min(LONGEST_REQUESTED))
}

/// Parses seconds, or the date of an HTTP header.
fn parse_retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(clock::now())).unwrap_or_default())
}

/// Parses `"resolvers";r=0;t=55`: nothing remains of the quota for 55 s. Several quotas are a list
/// with commas (draft-ietf-httpapi-ratelimit-headers): the one that lasts longest counts.
fn parse_rate_limit(value: &str) -> Option<Duration> {
    value.split(',').filter_map(parse_quota).max()
}

/// Parses one quota. `huggingface_hub` waits one second more (`utils/_http.py`), for `t` is rounded
/// down.
fn parse_quota(value: &str) -> Option<Duration> {
    let parameter = |name: &str| {
        let mut parameters = value.split(';').map(str::trim);
        let found = parameters.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
        found.parse::<u64>().ok()
    };
    let seconds = parameter("t").filter(|_| parameter("r") == Some(0))?;
    Some(Duration::from_secs(seconds.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn servers_say_in_three_ways_how_long_to_wait() {
        let pause = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            requested_pause(&headers).map(|pause| pause.as_secs())
        };
        assert_eq!(pause("retry-after", " 7 "), Some(7));
        assert_eq!(pause("retry-after", "1.5"), Some(1));
        assert_eq!(
            pause("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(0)
        );
        assert_eq!(
            pause("retry-after", "Mon, 21 Oct 2999 07:28:00 GMT"),
            Some(86_400)
        );
        assert_eq!(pause("ratelimit", r#""resolvers";r=0;t=55"#), Some(56));
        assert_eq!(pause("ratelimit", r#""api"; r=0; t=0"#), Some(1));
        let list = r#""api";r=3;t=99, "resolvers";r=0;t=55,"pages";r=0;t=7"#;
        assert_eq!(pause("ratelimit", list), Some(56));
        // Something remains: the refusal has another reason.
        assert_eq!(pause("ratelimit", r#""api";r=3;t=55"#), None);
        for bad in ["", "soon", "-1", "NaN", "1e400", r#""api";t=5"#, "r=0;t=x"] {
            assert_eq!(pause("retry-after", bad), None, "{bad}");
            assert_eq!(pause("ratelimit", bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in ".{0,60}") {
            let _ = (parse_retry_after(&text), parse_rate_limit(&text));
        }
    }
}
