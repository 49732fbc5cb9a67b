//! Reports: the step record, and what is made of it.
