//! The last good records of each source, on disk with their age.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use shared::{
    clock,
    file::{self, FileError},
};

use super::{harvest::Harvest, record::Record, source::Weighted};

const MAX_BYTES: u64 = 1 << 30;

/// The first line of a cache file.
#[derive(Debug, Serialize, Deserialize)]
struct CacheHeader {
    spec: String,
    fetched_at: u64,
}

/// Where records are kept between fetches.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// A cache in this folder; it is made when first written.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Keeps the records of a source in place of those kept before.
    pub fn store(&self, source: &Weighted, records: &[Record]) -> Result<(), FileError> {
        let header = CacheHeader {
            spec: source.spec.clone(),
            fetched_at: clock::unix_seconds(),
        };
        let mut text = serde_json::json!(header).to_string();
        for record in records {
            text.push('\n');
            text.push_str(&record.neutral().to_string());
        }
        text.push('\n');
        file::write_atomic(&self.path(source), text.as_bytes())
    }

    /// Returns the records kept for a source and their age, if they are not older than `max_age`.
    pub fn load(&self, source: &Weighted, max_age: Duration) -> Option<(Vec<Record>, Duration)> {
        let spec = &source.spec;
        let bytes = file::read_limited(&self.path(source), MAX_BYTES).ok()??;
        let text = String::from_utf8(bytes).ok()?;
        let (first, rest) = text.split_once('\n')?;
        let header: CacheHeader = serde_json::from_str(first).ok()?;
        let age = Duration::from_secs(clock::unix_seconds().saturating_sub(header.fetched_at));
        if header.spec != *spec || age > max_age {
            return None;
        }
        let mut harvest = Harvest::default();
        for (line, number) in rest.lines().zip(1..) {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            let origin = value.get("source").and_then(|source| source.as_str());
            let origin = origin.map_or_else(|| format!("{spec}#{number}"), ToOwned::to_owned);
            harvest.read_value(&value, origin);
        }
        Some((harvest.records, age))
    }

    fn path(&self, source: &Weighted) -> PathBuf {
        self.folder.join(format!("{}.jsonl", source.key))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_is_read_back_until_it_is_too_old() {
        let dir = tempfile::tempdir().unwrap();
        let [source, other] = ["jsonl:s", "jsonl:other"].map(|spec| spec.parse().unwrap());
        let cache = Cache::new(&dir.path().join("samples"));
        let value = json!({"prompt": "p\n", "response": "r", "ts": 2.0});
        let record = Record::read(&value).unwrap();
        let records = vec![Record {
            origin: "hf:a/b/c.parquet#7".into(),
            ..record
        }];
        assert!(cache.load(&source, Duration::MAX).is_none());
        cache.store(&source, &records).unwrap();
        let (loaded, age) = cache.load(&source, Duration::from_secs(60)).unwrap();
        assert_eq!(loaded, records);
        assert!(age < Duration::from_secs(60));
        assert!(cache.load(&other, Duration::MAX).is_none());
        let path = cache.path(&source);
        let old = std::fs::read_to_string(&path).unwrap().replacen(
            "fetched_at\":",
            "fetched_at\":1,\"x\":",
            1,
        );
        file::write_atomic(&path, old.as_bytes()).unwrap();
        assert!(cache.load(&source, Duration::from_secs(60)).is_none());
    }
}
