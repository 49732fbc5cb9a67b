//! Trouble on demand.
