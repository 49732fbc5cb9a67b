//! Where a redirect may lead, and where credentials may go.

use reqwest::Url;
use url::Host;

/// Most redirects followed for one request; the hub needs two.
pub(crate) const MAX_REDIRECTS: usize = 8;

/// Returns whether secrets may travel there: https anywhere, plain http on this machine only.
pub fn keeps_secrets(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

/// Returns whether credentials meant for `origin` may be sent to `url`: to the same scheme, host
/// and port only, and never unencrypted over a network.
pub(crate) fn may_authenticate(origin: &Url, url: &Url) -> bool {
    same_origin(origin, url) && keeps_secrets(url)
}

pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Decides on a redirect from `from` to `location`, for a request that began at `origin`.
///
/// Only https is followed, unless the target is the origin itself or both are this machine's
/// loopback: a server elsewhere must not send us to our own services.
pub(crate) fn follow(origin: &Url, from: &Url, location: &str) -> Result<Url, String> {
    let Ok(mut target) = from.join(location) else {
        return Err("a redirect to something that is not an address".into());
    };
    target.set_fragment(None);
    if !target.username().is_empty() || target.password().is_some() {
        return Err("a redirect with a user name in it".into());
    }
    let permitted = match target.scheme() {
        _ if same_origin(&target, origin) => true,
        "https" => !is_loopback(&target) || is_loopback(origin),
        "http" => is_loopback(&target) && is_loopback(origin),
        _ => false,
    };
    if permitted {
        Ok(target)
    } else {
        let shown = target.origin().ascii_serialization();
        Err(format!("a redirect to {shown}: only https is followed"))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_https_or_stay_on_this_machine() {
        let follow = |endpoint: &str, location: &str| {
            let endpoint = Url::parse(endpoint).unwrap();
            let from = endpoint.join("/a/b").unwrap();
            follow(&endpoint, &from, location).map(String::from)
        };
        let hub = "https://huggingface.co";
        assert_eq!(follow(hub, "/c").unwrap(), "https://huggingface.co/c");
        assert_eq!(follow(hub, "//cdn.hf.co/x").unwrap(), "https://cdn.hf.co/x");
        for bad in [
            "http://cdn.hf.co/x",
            "http://127.0.0.1/x",
            "https://localhost/x",
            "https://[::1]/x",
            "file:///etc/passwd",
            "ftp://a/b",
            "https://user:pass@cdn.hf.co/",
            "http://[",
        ] {
            assert!(follow(hub, bad).is_err(), "{bad}");
        }
        let local = "http://127.0.0.1:8000";
        assert!(follow(local, "http://127.0.0.1:9000/x").is_ok());
        assert!(follow(local, "http://localhost:9000/x").is_ok());
        assert!(follow(local, "http://10.0.0.1/x").is_err());
        let mirror = "http://mirror.lan:8000";
        assert!(follow(mirror, "/x").is_ok());
        assert!(follow(mirror, "http://other.lan/x").is_err());
    }

    #[test]
    fn credentials_stay_with_their_origin_and_off_the_open_network() {
        let may = |origin: &str, url: &str| {
            may_authenticate(&Url::parse(origin).unwrap(), &Url::parse(url).unwrap())
        };
        assert!(may("https://huggingface.co/a", "https://huggingface.co/b"));
        assert!(may("http://127.0.0.1:80/a", "http://127.0.0.1/b"));
        for (origin, url) in [
            ("https://huggingface.co", "https://cdn.huggingface.co"),
            ("https://huggingface.co", "https://huggingface.co:444"),
            ("https://huggingface.co", "http://huggingface.co"),
            ("http://127.0.0.1:1", "http://127.0.0.1:2"),
            ("http://mirror.lan", "http://mirror.lan"),
        ] {
            assert!(!may(origin, url), "{origin} {url}");
        }
    }
}
