//! `rollback`: back to the previous release.

use shared::{Exit, Failure};

use super::query::{Query, order};
use crate::control::Request;

pub(super) fn run(query: &Query) -> Result<Exit, Failure> {
    order(query, &Request::Rollback)
}
