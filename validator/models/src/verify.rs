//! Verification: a claim is held against listing, small files and headers, then against the bytes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hub::{Hub, Listing, Origin, RepositoryName};
use indicatif::ProgressBar;
use model::{ContentHash, config::DecoderSpec, inventory::Inventory, norms::ProjectionNorms};

use super::{
    Rejection, Store,
    claim::{claimed_hash, judge_claim},
    download::{Download, Wanted, blocking},
    identity::{Identity, Lookup},
    metadata::{Metadata, SeenHeader},
    rejection::Judged,
    report::{Report, Stage},
    rules::Rules,
    scan::{NormJudge, Scanned},
    store::{FileRecord, ModelRecord, StoredModel},
};
use subnet::{BlockNumber, Commitment, CompetitionId, Hotkey, ModelId};

pub use super::claim::Assertion;

/// A model whose every byte was seen to be what its commitment says. Only
/// [`Verifier::verify_commitment`] makes one.
#[derive(Debug, Clone)]
#[expect(
    clippy::manual_non_exhaustive,
    reason = "the private field keeps the rest of this crate from making one"
)]
pub struct VerifiedModel {
    /// The hotkey whose commitment names it.
    pub hotkey: Hotkey,
    /// When, as the chain says.
    pub block: BlockNumber,
    /// Where it is and what its hash should be, by the commitment.
    pub model_id: ModelId,
    /// The hash of its content, not bound to the hotkey.
    pub content_hash: ContentHash,
    /// Its folder in the store; pin it with [`Store::pin`] while it is in use.
    pub dir: std::path::PathBuf,
    /// Its parameter count, tied tensors counted once.
    pub parameters: u64,
    /// The competition it takes part in.
    pub competition: CompetitionId,
    /// Nobody else can name this field.
    _seen: (),
}

/// How much of a model is fetched to judge it.
#[derive(Debug, Clone)]
pub enum Reach {
    /// Listing, small files and the headers of the weights.
    Metadata,
    /// Fetch all of it into the store.
    Download {
        /// Counts the bytes that have come in.
        bar: ProgressBar,
    },
}

/// Judges models by their metadata, and by their bytes as these come in.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// The hub that the models come from.
    pub hub: Hub,
    /// Where they go; without one, only metadata can be judged.
    pub store: Option<Store>,
}

/// What is established about a model before its weights are fetched.
struct Examined {
    repository: RepositoryName,
    listing: Listing,
    listed_by: Origin,
    metadata: Metadata,
    headers: BTreeMap<String, SeenHeader>,
    layers: usize,
    inventory: Inventory,
}

/// How the examination of a model ended.
enum Examination {
    /// It is in the store, and within the rules.
    Known(Box<StoredModel>),
    New(Box<Examined>),
}

/// How long listing, small files and headers of one repository may take: others wait meanwhile.
/// Honest ones have some megabytes at most.
const EXAMINATION_LIMIT: Duration = Duration::from_mins(2);

fn too_slow() -> Rejection {
    Rejection::outside(format_args!(
        "the hub did not send listing, small files and headers within {} s",
        EXAMINATION_LIMIT.as_secs()
    ))
}

impl Verifier {
    /// Verifies a commitment and fetches its model.
    pub async fn verify_commitment(
        &self,
        commitment: &Commitment,
        rules: &Rules,
        report: &mut Report,
    ) -> Judged<VerifiedModel> {
        let Commitment {
            hotkey,
            block,
            model_id,
            ..
        } = commitment;
        let assertion = Assertion {
            model_id: model_id.clone(),
            hotkey: Some(*hotkey),
        };
        let reach = Reach::Download {
            bar: ProgressBar::hidden(),
        };
        let stored = self.verify(&assertion, rules, reach, report).await?;
        let stored = stored.ok_or_else(|| Rejection::machine("no store to download to"))?;
        Ok(VerifiedModel {
            hotkey: *hotkey,
            block: *block,
            model_id: model_id.clone(),
            content_hash: stored.record.content_hash,
            dir: stored.dir,
            parameters: report.parameters.unwrap_or_default(),
            competition: model_id.competition_or_old(),
            _seen: (),
        })
    }

    /// Verifies an assertion as far as `reach` goes. What was found out on the way is in `report`
    /// whatever the outcome; the model is returned if it was fetched.
    pub async fn verify(
        &self,
        assertion: &Assertion,
        rules: &Rules,
        reach: Reach,
        report: &mut Report,
    ) -> Judged<Option<StoredModel>> {
        let verifier = Self {
            hub: self.hub.counted(),
            store: self.store.clone(),
        };
        let outcome = verifier.judge(assertion, rules, reach, report).await;
        report.bytes_fetched = verifier.hub.bytes_fetched();
        report.origins = verifier.hub.served_by();
        report.mirrored = verifier.hub.is_mirrored();
        report.conclude(&outcome);
        outcome
    }

    async fn judge(
        &self,
        assertion: &Assertion,
        rules: &Rules,
        reach: Reach,
        report: &mut Report,
    ) -> Judged<Option<StoredModel>> {
        let claimed = claimed_hash(&assertion.model_id)?;
        let known = self.examine(assertion, claimed, rules, report);
        let known = tokio::time::timeout(EXAMINATION_LIMIT, known).await;
        let examined = match known.unwrap_or_else(|_| Err(too_slow()))? {
            Examination::Known(stored) => {
                report.stage = Stage::Bytes;
                return Ok(Some(*stored));
            }
            Examination::New(examined) => examined,
        };
        report.stage = Stage::Headers;
        let Reach::Download { bar } = reach else {
            return Ok(None);
        };
        self.fetch(*examined, assertion, claimed, rules, bar, report)
            .await
            .map(Some)
    }

    /// Finds out what can be known for kilobytes, or that the model is here already.
    async fn examine(
        &self,
        assertion: &Assertion,
        claimed: ContentHash,
        rules: &Rules,
        report: &mut Report,
    ) -> Judged<Examination> {
        let Identity {
            repository,
            listing,
            listed_by,
            metadata,
            foretold,
        } = self
            .lookup()
            .identify(assertion, claimed, rules, report)
            .await?;
        let source = self.lookup().source(&repository, &listing, listed_by);
        let spec = rules.judge_config(&metadata.manifest, &metadata.contents)?;
        report.parameters = Some(spec.parameters());
        rules.judge_tokenizer(&metadata.manifest, &metadata.contents)?;
        if let Some(known) = self.known(foretold, rules, &metadata, &spec).await? {
            return Ok(Examination::Known(Box::new(known)));
        }
        let mut headers = source.headers(&metadata.manifest).await?;
        let plain = headers
            .iter()
            .map(|(path, seen)| (path.clone(), seen.header.clone()))
            .collect();
        let inventory = Rules::judge_headers(&spec, &plain)
            .map_err(|rejection| self.lookup().unless_mirrored(rejection, &headers))?;
        for (path, seen) in &mut headers {
            seen.loaded = inventory.header_of(path, &seen.header);
        }
        Ok(Examination::New(Box::new(Examined {
            repository,
            listing,
            listed_by,
            metadata,
            headers,
            layers: spec.layers,
            inventory,
        })))
    }

    const fn lookup(&self) -> Lookup<'_> {
        Lookup {
            hub: &self.hub,
            store: self.store.as_ref(),
        }
    }

    /// Returns the model if it is in the store already and is within the rules. What is wrong with
    /// our copy does not speak against the model: it may have decayed, and is fetched again then.
    async fn known(
        &self,
        hash: Option<ContentHash>,
        rules: &Rules,
        metadata: &Metadata,
        spec: &DecoderSpec,
    ) -> Judged<Option<StoredModel>> {
        let (Some(store), Some(hash)) = (&self.store, hash) else {
            return Ok(None);
        };
        let Some(model) = store.model(&hash)? else {
            return Ok(None);
        };
        let inventory = match judge_stored_headers(&model, metadata, spec) {
            Ok(inventory) => inventory,
            Err(rejection) => {
                let judge = store.clone();
                let damage = blocking(move || Ok(judge.judge_copy(&hash)?)).await?;
                let Some(damage) = damage else {
                    return Err(rejection);
                };
                tracing::error!(%hash, damage, found = %rejection, "our copy of a model is damaged; it is fetched again");
                return Ok(None);
            }
        };
        let norms = model.record.norms.iter();
        let norms: ProjectionNorms = norms
            .map(|(layer, projection, norm)| (*layer, *projection, norm.unwrap_or(f64::NAN)))
            .collect();
        let judge = NormJudge::new(spec.layers, rules.dtype, rules.norms);
        let judged = rules
            .judge_untied(&inventory, &model.record.tensors)
            .and_then(|_| judge.add(&norms));
        if let Err(rejection) = judged {
            // No hash vouches for the record: the weights themselves are scanned.
            tracing::info!(%hash, found = %rejection, "judging the weights of a known model anew");
            return Ok(None);
        }
        store.note_use(&hash)?;
        Ok(Some(model))
    }

    async fn fetch(
        &self,
        examined: Examined,
        assertion: &Assertion,
        claimed: ContentHash,
        rules: &Rules,
        bar: ProgressBar,
        report: &mut Report,
    ) -> Judged<StoredModel> {
        let store = self.store.clone();
        let store = store.ok_or_else(|| Rejection::machine("no store to download to"))?;
        let wanted = self.wanted(&examined)?;
        let _room = reserve(&store, &examined, &wanted)?;
        bar.set_length(wanted.iter().map(|wanted| wanted.remote.size()).sum());
        let judge = Arc::new(NormJudge::new(examined.layers, rules.dtype, rules.norms));
        let download = Download {
            hub: self.hub.clone(),
            store: store.clone(),
            judge: Arc::clone(&judge),
            bar,
            listed_by: examined.listed_by,
        };
        let scanned = download.all(wanted).await?;
        drop(download);
        report.stage = Stage::Bytes;
        let record = record(&examined, scanned, &judge);
        report.record(&record);
        report.claim = Some(judge_claim(
            claimed,
            record.content_hash,
            assertion.hotkey,
            report,
        )?);
        report.parameters = Some(rules.judge_untied(&examined.inventory, &record.tensors)?);
        blocking(move || Ok(store.add_model(&record)?)).await
    }

    /// Lists what has to be scanned: the weights, and files too large to have been read already.
    fn wanted(&self, examined: &Examined) -> Judged<Vec<Wanted>> {
        let Examined {
            repository,
            listing,
            listed_by,
            metadata,
            headers,
            ..
        } = examined;
        let source = self.lookup().source(repository, listing, *listed_by);
        let files = metadata.manifest.files.iter();
        files
            .filter(|(path, _)| !metadata.contents.contains_key(*path))
            .map(|(path, entry)| {
                let header = headers.get(path).cloned();
                let remote = match &header {
                    Some(seen) => Arc::clone(&seen.file),
                    None => Arc::new(source.file(path, entry)?),
                };
                Ok(Wanted {
                    path: path.clone(),
                    remote,
                    header,
                })
            })
            .collect()
    }
}

/// Judges the headers of a model as it lies in the store.
fn judge_stored_headers(
    model: &StoredModel,
    metadata: &Metadata,
    spec: &DecoderSpec,
) -> Judged<Inventory> {
    let headers = metadata.manifest.layout.weights.names().map(|name| {
        let path = model.dir.join(name);
        let mut file =
            std::fs::File::open(&path).map_err(shared::file::FileError::on("open", &path))?;
        let size = file.metadata().map_or(0, |found| found.len());
        let header = model::header::Header::read(&mut file, size)
            .map_err(shared::file::FileError::on("read", &path))?;
        let header = header.map_err(|error| Rejection::refused(format!("{name}: {error}")))?;
        Ok((name.to_owned(), header))
    });
    let headers: BTreeMap<_, _> = headers.collect::<Judged<_>>()?;
    Rules::judge_headers(spec, &headers)
}

/// Asks for room for what is to be fetched; what is here already is kept meanwhile.
fn reserve(
    store: &Store,
    examined: &Examined,
    wanted: &[Wanted],
) -> Judged<super::store::Reservation> {
    let mut needs: Vec<(String, u64)> = wanted
        .iter()
        .map(|wanted| (wanted.key(), wanted.remote.size()))
        .collect();
    let small = examined.metadata.contents.iter();
    needs.extend(small.filter_map(|(path, content)| {
        Some((
            examined.metadata.digests.get(path)?.to_string(),
            content.len() as u64,
        ))
    }));
    Ok(store.reserve(&needs)?)
}

fn record(
    examined: &Examined,
    scanned: BTreeMap<String, Scanned>,
    judge: &NormJudge,
) -> ModelRecord {
    let mut tensors = BTreeMap::new();
    let mut digests = examined.metadata.digests.clone();
    for (path, scanned) in scanned {
        digests.insert(path, scanned.digest);
        tensors.extend(scanned.tensors);
    }
    let files: Vec<FileRecord> = examined
        .metadata
        .manifest
        .files
        .iter()
        .filter_map(|(path, entry)| {
            let (size, sha256) = (entry.size?, *digests.get(path)?);
            Some(FileRecord {
                path: path.clone(),
                size,
                sha256,
            })
        })
        .collect();
    ModelRecord {
        format: super::store::RECORD_FORMAT,
        content_hash: ContentHash::of_files(files.iter().map(|file| (&file.path, file.sha256.0))),
        files,
        repository: examined.repository.to_string(),
        commit: examined.listing.commit.clone(),
        norms: judge.table(),
        tensors,
        added: shared::clock::now(),
    }
}
