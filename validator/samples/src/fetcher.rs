//! The fetcher: all sources side by side, each with a deadline, a cache behind each.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use futures::future::join_all;
use serde::Serialize;

use super::{
    cache::Cache,
    filter::{Dropped, Filter},
    harvest::Harvest,
    hub, jsonl,
    record::Record,
    sample_set::{Sample, SampleSet, draw},
    source::{Source, Weighted},
    wandb, web,
};
use http_client::{HttpClient, HttpOptions};
use subnet::Fault;

/// How long one source may take, retries included.
const DEADLINE: Duration = Duration::from_secs(300);

/// What the fetcher needs to know.
#[derive(Debug, Clone)]
pub struct FetcherSettings {
    /// The sources and their shares.
    pub sources: Vec<Weighted>,
    /// Fewer usable samples than this and the round is skipped.
    pub minimum: usize,
    /// Where the last good records are kept; nowhere if none.
    pub cache: Option<PathBuf>,
    /// How old kept records may be.
    pub max_age: Duration,
    /// Which records may be scored.
    pub filter: Filter,
    /// Bearer token for `http` sources.
    pub http_token: Option<String>,
    /// How the hub is reached.
    pub hub: hub::HubAccess,
    /// W&B's address, key and the steps to read.
    pub wandb: wandb::WandbAccess,
}

/// What one source gave, for people and for the step record.
#[derive(Debug, Clone, Serialize)]
pub struct SourceReport {
    /// The source, as `--samples` gave it.
    pub source: String,
    /// Records that passed the filter.
    pub usable: usize,
    /// What was not used, and why.
    pub dropped: Dropped,
    /// What went wrong, in words.
    pub notes: Vec<String>,
    /// Age of the records in seconds, if they come from the cache.
    pub cached_age: Option<u64>,
}

/// Usable records of all sources, ready to be drawn from.
#[derive(Debug, Clone)]
pub struct Pool {
    sources: Vec<(Weighted, Vec<Record>)>,
    /// What each source gave, in the order of the sources.
    pub reports: Vec<SourceReport>,
    minimum: usize,
}

/// Fetches from the configured sources.
#[derive(Debug)]
pub struct Fetcher {
    settings: FetcherSettings,
    cache: Option<Cache>,
    client: HttpClient,
}

impl Fetcher {
    /// Makes a fetcher; nothing is fetched yet.
    pub fn new(settings: FetcherSettings) -> Result<Self, Fault> {
        if settings.sources.is_empty() {
            return Err(Fault::config("no sample source: give --samples"));
        }
        let cache = settings.cache.as_deref().map(Cache::new);
        Ok(Self {
            cache,
            client: HttpClient::new(HttpOptions::default())?,
            settings,
        })
    }

    /// Returns how old samples may be.
    pub fn max_age(&self) -> Duration {
        self.settings.max_age
    }

    /// Fetches from every source. Sources too large to read whole pick what they read by `seed`.
    /// A source that fails gives its last good records, if they are young enough.
    pub async fn fetch(&self, wanted: usize, seed: u64) -> Pool {
        let fetches = self
            .settings
            .sources
            .iter()
            .map(|source| self.source(source, wanted, seed));
        let (sources, reports) = join_all(fetches)
            .await
            .into_iter()
            .zip(&self.settings.sources)
            .map(|((records, report), source)| ((source.clone(), records), report))
            .unzip();
        Pool {
            sources,
            reports,
            minimum: self.settings.minimum,
        }
    }

    async fn source(
        &self,
        source: &Weighted,
        wanted: usize,
        seed: u64,
    ) -> (Vec<Record>, SourceReport) {
        let fetched = tokio::time::timeout(DEADLINE, self.harvest(&source.source, wanted, seed));
        let fetched = fetched.await.unwrap_or_else(|_| {
            Err(Fault::outside(format!(
                "no answer within {} s",
                DEADLINE.as_secs()
            )))
        });
        let mut harvest = fetched.unwrap_or_else(|fault| {
            let mut harvest = Harvest::default();
            harvest.note(fault);
            harvest
        });
        let records = std::mem::take(&mut harvest.records);
        let mut usable = self.settings.filter.apply(records, &mut harvest.dropped);
        let mut cached_age = None;
        // A meagre answer neither beats nor replaces a better one of before.
        let kept = (usable.len() < self.settings.minimum.max(1))
            .then(|| self.kept(source))
            .flatten()
            .filter(|(kept, _)| kept.len() > usable.len());
        if let Some((kept, age)) = kept {
            tracing::warn!(source = %source.spec, gave = usable.len(), cached = kept.len(),
                age_s = age.as_secs(), reason = harvest.notes.first(),
                "source fails: its cached samples are used");
            usable = kept;
            cached_age = Some(age.as_secs());
        } else if usable.is_empty() {
            tracing::warn!(source = %source.spec, reason = harvest.notes.first(),
                "source gives no sample, and there is no young enough cache of it");
        } else if let Some(cache) = &self.cache
            && let Err(error) = cache.store(source, &usable)
        {
            harvest.note(format_args!("{error}: {}", error.source));
        }
        let report = SourceReport {
            source: source.spec.clone(),
            usable: usable.len(),
            dropped: harvest.dropped,
            notes: harvest.notes,
            cached_age,
        };
        (usable, report)
    }

    /// Returns the cached records of a source and their age. The filter may have changed since.
    fn kept(&self, source: &Weighted) -> Option<(Vec<Record>, Duration)> {
        let (kept, age) = self.cache.as_ref()?.load(source, self.settings.max_age)?;
        let kept = self.settings.filter.apply(kept, &mut Dropped::default());
        Some((kept, age))
    }

    async fn harvest(&self, source: &Source, wanted: usize, seed: u64) -> Result<Harvest, Fault> {
        let FetcherSettings {
            http_token,
            hub,
            wandb,
            ..
        } = &self.settings;
        match source {
            Source::Jsonl(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || jsonl::fetch(&path))
                    .await
                    .map_err(|error| Fault::machine(format!("reading samples: {error}")))?
            }
            Source::Http(urls) => web::fetch(&self.client, urls, http_token.as_deref()).await,
            Source::Hub {
                dataset,
                revision,
                config,
                split,
            } => {
                let dataset = hub::Dataset {
                    name: dataset.clone(),
                    revision: revision.clone(),
                    config: config.clone(),
                    split: split.clone(),
                };
                hub::fetch(&self.client, hub, &dataset, wanted, seed).await
            }
            Source::Wandb {
                entity,
                project,
                layout,
                runs,
                signed,
            } => {
                let project = wandb::Project {
                    entity: entity.clone(),
                    project: project.clone(),
                    layout: *layout,
                    runs: *runs,
                    signed: *signed,
                };
                wandb::fetch(&self.client, wandb, &project, wanted).await
            }
        }
    }
}

impl Pool {
    /// Says of each source that failed what was done about it.
    pub fn trouble(&self) -> Vec<String> {
        let failed = self.reports.iter().filter_map(|report| {
            let SourceReport { source, notes, .. } = report;
            let what = match report.cached_age {
                Some(age) => format!("uses its samples of {} min ago", age / 60),
                None if report.usable == 0 => "gives no sample".to_owned(),
                None => return None,
            };
            let why = notes.first().map_or("", String::as_str);
            Some(format!("{source} {what} ({why})"))
        });
        failed.collect()
    }

    /// Draws `count` samples, each source by its share; what one source lacks the others give.
    /// Fewer than the minimum is a fault of the outside: skip the round, keep the scores.
    pub fn draw(&self, count: usize, seed: u64) -> Result<SampleSet, Fault> {
        let filled: Vec<_> = self
            .sources
            .iter()
            .filter(|(_, records)| !records.is_empty())
            .collect();
        let total: f64 = filled.iter().map(|(source, _)| source.weight).sum();
        let mut chosen: Vec<Sample> = Vec::new();
        let mut spare: Vec<Sample> = Vec::new();
        let mut known = BTreeSet::new();
        for (source, records) in filled {
            let share = ((count as f64) * source.weight / total).ceil() as usize;
            let mut taken = 0;
            for sample in draw(records, count, seed) {
                if taken == share || chosen.len() == count {
                    spare.push(sample);
                } else if known.insert(sample.id.clone()) {
                    chosen.push(sample);
                    taken += 1;
                }
            }
        }
        for sample in spare {
            if chosen.len() < count && known.insert(sample.id.clone()) {
                chosen.push(sample);
            }
        }
        if chosen.len() < self.minimum.max(1) {
            let notes: Vec<_> = self
                .reports
                .iter()
                .flat_map(|report| &report.notes)
                .collect();
            return Err(Fault::outside(format!(
                "only {} usable samples, {} are needed{}",
                chosen.len(),
                self.minimum.max(1),
                notes
                    .first()
                    .map_or(String::new(), |note| format!(" ({note})"))
            )));
        }
        let sources = self
            .sources
            .iter()
            .map(|(source, _)| source.spec.clone())
            .collect();
        let mut set = SampleSet::new(chosen, sources, seed);
        set.cached_age = self
            .reports
            .iter()
            .filter_map(|report| report.cached_age)
            .max();
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use shared::file::write_atomic;

    use super::*;

    fn lines(range: std::ops::Range<u32>) -> String {
        range
            .map(|n| format!("{{\"prompt\":\"p{n}\",\"response\":\"r\"}}\n"))
            .collect()
    }

    fn settings(sources: &[String], dir: &std::path::Path) -> FetcherSettings {
        FetcherSettings {
            sources: sources.iter().map(|spec| spec.parse().unwrap()).collect(),
            minimum: 5,
            cache: Some(dir.join("cache")),
            max_age: Duration::from_secs(3600),
            filter: Filter::default(),
            http_token: None,
            hub: hub::HubAccess::default(),
            wandb: wandb::WandbAccess::default(),
        }
    }

    #[tokio::test]
    async fn sources_share_by_weight_and_fill_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write_atomic(&path("a.jsonl"), lines(0..100).as_bytes()).unwrap();
        write_atomic(&path("b.jsonl"), lines(90..103).as_bytes()).unwrap();
        let specs = [
            format!("jsonl:{}*3", path("a.jsonl").display()),
            format!("jsonl:{}*1", path("b.jsonl").display()),
        ];
        let fetcher = Fetcher::new(settings(&specs, dir.path())).unwrap();
        let pool = fetcher.fetch(40, 7).await;
        let set = pool.draw(40, 7).unwrap();
        assert_eq!(set.samples.len(), 40);
        let ids: BTreeSet<_> = set.samples.iter().map(|s| &s.id).collect();
        assert_eq!(ids.len(), 40, "no sample twice");
        assert_eq!(pool.draw(1000, 7).unwrap().samples.len(), 103);
        assert_eq!(set, pool.draw(40, 7).unwrap());
        assert_ne!(set.digest, pool.draw(40, 8).unwrap().digest);
    }

    #[tokio::test]
    async fn a_source_that_fails_gives_its_cache_and_then_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.jsonl");
        write_atomic(&file, lines(0..9).as_bytes()).unwrap();
        let mut settings = settings(&[format!("jsonl:{}", file.display())], dir.path());
        let fetcher = Fetcher::new(settings.clone()).unwrap();
        let fresh = fetcher.fetch(9, 1).await.draw(9, 1).unwrap();
        std::fs::remove_file(&file).unwrap();
        let kept = fetcher.fetch(9, 1).await.draw(9, 1).unwrap();
        assert_eq!(kept.digest, fresh.digest);
        assert!(kept.cached_age.is_some());
        settings.cache = Some(dir.path().join("elsewhere"));
        let error = Fetcher::new(settings)
            .unwrap()
            .fetch(9, 1)
            .await
            .draw(9, 1)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("only 0 usable samples, 5 are needed (no sample files")
        );
    }
}
