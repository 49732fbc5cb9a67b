//! Rows through the dataset viewer: pages of a hundred, at places that the seed picks.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{Dataset, HubAccess};
use crate::harvest::Harvest;
use http_client::{Credentials, HttpClient, HttpRequest};
use subnet::Fault;

/// The most rows the viewer gives at once.
const PAGE: u64 = 100;
const MAX_PAGES: usize = 40;
const MAX_PAGE_BYTES: u64 = 16 << 20;
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
struct ViewerPage {
    rows: Vec<ViewerRow>,
    num_rows_total: u64,
}

#[derive(Debug, Deserialize)]
struct ViewerRow {
    row_idx: u64,
    row: Value,
}

/// Reads pages until about `wanted` records are had.
pub(super) async fn fetch(
    client: &HttpClient,
    viewer: &Url,
    access: &HubAccess,
    dataset: &Dataset,
    wanted: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Harvest, Fault> {
    let total = page(client, (viewer, access), dataset, 0, 1)
        .await?
        .num_rows_total;
    let pages_in_all = total.div_ceil(PAGE);
    let mut harvest = Harvest::default();
    for _ in 0..MAX_PAGES.min(wanted.div_ceil(PAGE as usize)) {
        if pages_in_all == 0 {
            break;
        }
        let offset = rng.random_range(0..pages_in_all) * PAGE;
        match page(client, (viewer, access), dataset, offset, PAGE).await {
            Ok(page) => {
                for ViewerRow { row_idx, row } in page.rows {
                    harvest.read_value(&row, format!("viewer:{}#{row_idx}", dataset.name));
                }
            }
            Err(error) if harvest.records.is_empty() => return Err(error),
            Err(error) => {
                harvest.note(error);
                break;
            }
        }
    }
    Ok(harvest)
}

async fn page(
    client: &HttpClient,
    (viewer, access): (&Url, &HubAccess),
    dataset: &Dataset,
    offset: u64,
    length: u64,
) -> Result<ViewerPage, Fault> {
    let mut url = viewer.clone();
    url.set_path(&format!("{}/rows", url.path().trim_end_matches('/')));
    url.query_pairs_mut()
        .append_pair("dataset", &dataset.name)
        .append_pair("config", dataset.config.as_deref().unwrap_or("default"))
        .append_pair("split", dataset.split.as_deref().unwrap_or("train"))
        .append_pair("offset", &offset.to_string())
        .append_pair("length", &length.to_string());
    let credentials = access.token.as_deref().map(Credentials::bearer);
    let request =
        HttpRequest::get(url, MAX_PAGE_BYTES, DEADLINE).credentials(credentials.transpose()?);
    Ok(request.json(client).await?)
}
