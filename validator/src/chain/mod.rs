//! The chain client: the only folder that names subxt.
