//! `validator show leaders`.

use index::Leaders;
use shared::term;

use super::pieces::{ago, loss, or_dash, rank_change, repository, text};

pub(super) fn show(found: &[Leaders]) {
    if found.is_empty() {
        term::note("no step was completed yet");
    }
    for Leaders {
        last,
        before,
        standings,
    } in found
    {
        term::line(format_args!(
            "competition {}: step {} at block {}, {} on {} samples{}",
            text(&last.competition),
            last.step,
            last.block,
            ago(last.finished),
            last.samples,
            or_dash(*before, |before| format!(
                "; changes are against step {before}"
            )),
        ));
        let mut table = term::table([
            "rank", "change", "uid", "model", "loss", "win rate", "weight", "why",
        ]);
        for row in standings {
            table.add_row([
                or_dash(row.rank, |rank| rank.to_string()),
                rank_change(row.rank_before, row.rank),
                row.uid.to_string(),
                repository(&row.model),
                loss(row.loss),
                format!("{:.3}", row.win_rate),
                format!("{:.4}", row.weight.0),
                text(&row.why),
            ]);
        }
        term::line(table);
    }
}
