//! `stop`: the child and its supervisor end.

use shared::{Exit, Failure};

use super::query::{Query, order};
use crate::control::Request;

pub(super) fn run(query: &Query) -> Result<Exit, Failure> {
    order(query, &Request::Stop)
}
