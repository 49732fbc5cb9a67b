//! `validator inspect hyperparameters`: what the chain asks of weights, and when its epochs are.

use shared::term::{self, Table};

use chain::ChainSnapshot;

pub(super) fn table(snapshot: &ChainSnapshot) -> Table {
    let mut table = term::table(["hyperparameter", "value"]);
    let value = serde_json::to_value(&snapshot.hyperparameters).unwrap_or_default();
    for (name, value) in value.as_object().into_iter().flatten() {
        table.add_row([name.replace('_', " "), value.to_string()]);
    }
    let next = snapshot
        .next_epoch
        .map_or_else(|| "none in sight".to_owned(), |block| block.to_string());
    table.add_row(["next epoch".to_owned(), next]);
    table
}
