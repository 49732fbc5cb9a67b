//! `validator inspect metagraph`: the neurons.

use shared::term::{self, Table};

use super::on_chain::{RAO, share};
use chain::ChainSnapshot;

pub(super) fn table(snapshot: &ChainSnapshot) -> Table {
    let headings = [
        "uid",
        "hotkey",
        "stake",
        "permit",
        "active",
        "consensus",
        "incentive",
        "dividends",
        "updated",
    ];
    let mut table = term::table(headings);
    for neuron in &snapshot.neurons {
        table.add_row([
            neuron.uid.to_string(),
            neuron.hotkey.to_string(),
            format!("{:.3}", neuron.stake as f64 / RAO),
            yes_no(neuron.validator_permit),
            yes_no(neuron.active),
            share(neuron.consensus),
            share(neuron.incentive),
            share(neuron.dividends),
            neuron.last_update.to_string(),
        ]);
    }
    table
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "" }.to_owned()
}
