//! Scoring, pure: duplicates, wins, weights, pool.
