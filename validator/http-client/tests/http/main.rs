//! The client against servers on loopback that serve less, more or other than they should.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

mod ranges;
mod requests;
mod server;
