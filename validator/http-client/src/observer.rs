//! Who is told of each answer: what metrics are made of.

use std::{fmt, time::Duration};

use reqwest::StatusCode;

/// Is told what a client and its clones meet. It is called in the midst of requests: it must not block.
pub trait HttpObserver: fmt::Debug + Send + Sync {
    /// The head of an answer has come, redirects included; or, with no status, it has become clear that none will.
    fn answered(&self, status: Option<StatusCode>, after: Duration);

    /// So many bytes of bodies have come.
    fn received(&self, bytes: u64);
}
