//! Timelocked commit-reveal from end to end.
