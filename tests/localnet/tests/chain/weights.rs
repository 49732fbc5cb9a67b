//! Weights: accepted, and refused for each reason.
