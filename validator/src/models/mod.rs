//! Models: what is committed, what was verified, what lies on disk.
