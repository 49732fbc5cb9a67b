//! The hostile zoo: repositories, tokenizers and hubs that mean ill, each with its verdict, what it
//! cost, and that no worker ended and nothing was written outside. `docs/hostile.md` has the table.

mod hubs;
pub(crate) mod keeper;
mod repository;
pub(crate) mod run;
pub(crate) mod specimen;
mod table;
mod templates;
mod tokenizers;
mod weights;

use self::{keeper::Keeper, specimen::Specimen, table::Row};

const HUBS: &str = "Hubs";

/// All of them, by what is wrong with them.
fn groups() -> Vec<(&'static str, Vec<Specimen>)> {
    vec![
        ("Headers of weights", weights::headers()),
        ("Weights", weights::numbers()),
        ("Configurations", repository::configurations()),
        ("Indices", repository::indices()),
        ("Settings for generation", repository::settings()),
        ("Files and their names", repository::names()),
        ("Tokenizers", tokenizers::tokenizers()),
        ("Chat templates", templates::templates()),
        (HUBS, hubs::hubs()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_has_its_verdict_and_no_worker_ends() {
    let keeper = Keeper::new().await;
    let mut found = Vec::new();
    for (group, specimens) in groups() {
        let mut rows: Vec<Row> = Vec::new();
        for specimen in &specimens {
            rows.push(keeper.row(specimen).await);
            println!("{}", rows.last().unwrap());
        }
        found.push((group, rows));
    }
    table::compare(&found);
    keeper.close().await;
}
