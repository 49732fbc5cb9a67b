//! Samples over HTTP: JSONL or a JSON array, from the first mirror that gives a good answer.

use std::time::Duration;

use url::Url;

use super::{harvest::Harvest, text::TextReader};
use http_client::{Credentials, HttpClient, HttpRequest};
use subnet::Fault;

const MAX_BYTES: u64 = 256 << 20;
const DEADLINE: Duration = Duration::from_secs(120);

/// Fetches from the mirrors in order until one gives records.
pub async fn fetch(
    client: &HttpClient,
    urls: &[Url],
    token: Option<&str>,
) -> Result<Harvest, Fault> {
    let credentials = token.map(Credentials::bearer).transpose()?;
    let mut notes = Vec::new();
    for url in urls {
        let request =
            HttpRequest::get(url.clone(), MAX_BYTES, DEADLINE).credentials(credentials.clone());
        // Read as it comes: what is dropped takes no memory.
        let begin = || TextReader::new(http_client::shown(url));
        match request.receive(client, begin).await {
            Ok(reader) => {
                let mut harvest = reader.finish();
                if !harvest.records.is_empty() {
                    harvest.notes.splice(0..0, notes);
                    return Ok(harvest);
                }
                notes.push(format!("{} holds no sample", http_client::shown(url)));
                notes.extend(harvest.notes.into_iter().take(3));
            }
            Err(error) => notes.push(error.to_string()),
        }
    }
    Err(Fault::outside(notes.join("; ")))
}
