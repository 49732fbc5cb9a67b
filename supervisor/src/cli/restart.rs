//! `restart`: a fresh child.

use shared::{Exit, Failure};

use super::query::{Query, order};
use crate::control::Request;

pub(super) fn run(query: &Query) -> Result<Exit, Failure> {
    order(query, &Request::Restart)
}
