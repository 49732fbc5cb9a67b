//! The address of a node. It may hold a key in its user, path or query; nothing shows these.

use std::fmt;

use url::Url;

/// What stands for everything that may be a secret.
const HIDDEN: &str = "***";

/// Shorter parts of a path (`v1`, `ws`, `rpc`) are not keys.
const KEY_LENGTH: usize = 8;

/// The WebSocket address of a node. Both ways of printing it show scheme, host and port only.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeUrl(Url);

impl NodeUrl {
    /// Returns the whole address, for the connection itself and for nothing else.
    pub(crate) fn expose(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) const fn url(&self) -> &Url {
        &self.0
    }

    /// Takes the address's secrets out of a text of others: of an error, or of what a node says.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let url = &self.0;
        let user = (!url.username().is_empty()).then(|| url.username());
        let parts = url.path_segments().into_iter().flatten();
        let keys = parts.filter(|part| part.len() >= KEY_LENGTH);
        let values = url.query().into_iter().flat_map(|query| query.split('&'));
        let values = values.filter_map(|pair| pair.split_once('=').map(|(_, value)| value));
        let mut secrets: Vec<&str> = (user.into_iter().chain(url.password()))
            .chain(url.query())
            .chain(values)
            .chain(keys)
            .filter(|secret| secret.len() > 2)
            .collect();
        // A secret that holds another one goes first.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut text = text.to_owned();
        for secret in secrets {
            text = text.replace(secret, HIDDEN);
        }
        text
    }
}

impl From<Url> for NodeUrl {
    fn from(url: Url) -> Self {
        Self(url)
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hidden(self.0.as_str()))
    }
}

impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeUrl({self})")
    }
}

/// Leaves scheme, host and port of what is an address, or was meant to be one.
pub(crate) fn hidden(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((_, host)) => (format!("{HIDDEN}@"), host),
        None => (String::new(), authority),
    };
    let path = if matches!(path, "" | "/") {
        path.to_owned()
    } else {
        format!("/{HIDDEN}")
    };
    format!("{scheme}{user}{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> NodeUrl {
        NodeUrl(Url::parse(text).unwrap())
    }

    #[test]
    fn only_scheme_host_and_port_are_shown() {
        for (address, shown) in [
            ("ws://127.0.0.1:9944", "ws://127.0.0.1:9944/"),
            (
                "wss://key:SECRET@node.example:8443/v1/SECRET?token=SECRET#SECRET",
                "wss://***@node.example:8443/***",
            ),
            ("wss://node.example/SECRET", "wss://node.example/***"),
            ("wss://node.example?k=SECRET", "wss://node.example/***"),
        ] {
            assert_eq!(node(address).to_string(), shown);
            assert_eq!(format!("{:?}", node(address)), format!("NodeUrl({shown})"));
        }
        assert_eq!(hidden("ws://key:SECRET@"), "ws://***@");
        assert_eq!(hidden("key:SECRET@host/SECRET"), "***@host/***");
        assert_eq!(hidden("finny"), "finny");
    }

    #[test]
    fn what_a_node_says_of_our_key_is_not_repeated() {
        let node = node("wss://me:PASSWORD@node.example/v1/LONGPATHKEY?api=QUERYKEY");
        let said = "no quota for LONGPATHKEY, QUERYKEY or PASSWORD; see /v1";
        assert_eq!(node.scrub(said), "no quota for ***, *** or ***; see /v1");
    }
}
