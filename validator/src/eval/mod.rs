//! Evaluation: the packing plan, and the client of the eval-worker.
