//! Downloads: parallel byte ranges, written and hashed in order, so that what is on disk is always
//! a prefix of the file and any interruption can be resumed.

use std::{collections::BTreeMap, io::Read, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http_client::HttpError;
use hub::{Hub, HubFile, Origin, OriginTrouble};
use indicatif::ProgressBar;
use model::hash::file_digest;
use shared::file::FileError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    Digest, Rejection, Store,
    metadata::{SeenHeader, is_as_listed},
    rejection::Judged,
    scan::{Evidence, NormJudge, Scan, Scanned},
    store::Staging,
    tries::Tries,
};

/// Bytes asked for at once: large enough that requests cost nothing, small enough that a few of
/// them fit into memory.
const PART: u64 = 8 << 20;

/// Files fetched side by side: one core hashes about as fast as a fast disk writes.
const FILES_AT_ONCE: usize = 4;

#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) path: String,
    pub(super) remote: Arc<HubFile>,
    /// For weights: the header that was judged.
    pub(super) header: Option<SeenHeader>,
}

impl Wanted {
    /// Returns the key of the staging file: the SHA-256 if the hub lists one, which other
    /// repositories with the same file share.
    pub(super) fn key(&self) -> String {
        let name = || Digest::of(self.remote.name().as_bytes()).to_string() + "-unlisted";
        self.remote
            .sha256()
            .map_or_else(name, |sha256| Digest(sha256).to_string())
    }
}

/// What a download works with.
#[derive(Debug, Clone)]
pub(super) struct Download {
    pub(super) hub: Hub,
    pub(super) store: Store,
    pub(super) judge: Arc<NormJudge>,
    pub(super) bar: ProgressBar,
    /// Who gave the listing.
    pub(super) listed_by: Origin,
}

/// How the writing of a download ended.
#[derive(Debug)]
enum WriteEnd {
    Whole(Staging, Scanned),
    Short,
    Rejected(Staging, Rejection, Option<Evidence>),
}

/// How a file was fetched.
#[derive(Debug)]
enum Fetched {
    /// Judged as its bytes came.
    Judged(Scanned),
    /// It is in the store, and nothing but its hash was looked at.
    ToBeJudged,
    /// It was not what the listing says.
    OtherBytes,
}

/// A part of a file, and the right to the connection it came over.
type FetchedPart = (Vec<Bytes>, Option<OwnedSemaphorePermit>);

impl Download {
    /// Fetches files into the store, scanning each; those that are there already are scanned where
    /// they lie. Returns what the scans found, by path.
    pub(super) async fn all(&self, wanted: Vec<Wanted>) -> Judged<BTreeMap<String, Scanned>> {
        // Files of equal content are one blob: the first stands for all.
        let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut distinct = Vec::new();
        for wanted in wanted {
            let same = paths.entry(wanted.key()).or_default();
            same.push(wanted.path.clone());
            if same.len() == 1 {
                distinct.push(wanted);
            }
        }
        let scanned: Vec<(String, Scanned)> =
            stream::iter(distinct)
                .map(|wanted| async move {
                    Ok::<_, Rejection>((wanted.key(), self.one(&wanted).await?))
                })
                .buffer_unordered(FILES_AT_ONCE)
                .try_collect()
                .await?;
        let all_paths = |(key, scanned): (String, Scanned)| {
            let same = paths.remove(&key).unwrap_or_default();
            same.into_iter().map(move |path| (path, scanned.clone()))
        };
        Ok(scanned.into_iter().flat_map(all_paths).collect())
    }

    async fn one(&self, wanted: &Wanted) -> Judged<Scanned> {
        if let Some(judged) = self.stored(wanted).await? {
            self.bar.inc(wanted.remote.size());
            return judged;
        }
        let mut tries = Tries::new(&self.hub, self.listed_by, wanted.remote.sha256().is_some());
        while let Some(origin) = tries.next() {
            match self.fetch(wanted, origin).await {
                Ok(Fetched::Judged(scanned)) => {
                    tries.served(origin);
                    return Ok(scanned);
                }
                Ok(Fetched::ToBeJudged) => {
                    tries.served(origin);
                    let judged = self.stored(wanted).await?;
                    return judged.unwrap_or_else(|| Err(Rejection::machine("a blob vanished")));
                }
                Ok(Fetched::OtherBytes) => {
                    let by = self.hub.address(origin);
                    let path = &wanted.path;
                    let reason = format!("{path} at {by}: its SHA-256 is not that of the listing");
                    tries.sent_other_bytes(origin, reason);
                }
                Err(rejection) => tries.failed(origin, rejection)?,
            }
        }
        Err(tries.rejection())
    }

    /// Judges the file where it lies in the store; `None` if it is not there, or damaged.
    async fn stored(&self, wanted: &Wanted) -> Judged<Option<Judged<Scanned>>> {
        let size = wanted.remote.size();
        let Some(sha256) = wanted.remote.sha256() else {
            return Ok(None);
        };
        let Some(path) = self.store.blob(&Digest(sha256), size)? else {
            return Ok(None);
        };
        let file = std::fs::File::open(&path).map_err(FileError::on("open", &path))?;
        let scanned = self.scan(wanted, file, size).await;
        // Bytes that have decayed here must not speak against a model.
        let found = if let Ok(scanned) = &scanned {
            Some(scanned.digest.0)
        } else {
            let path = path.clone();
            blocking(move || Ok(file_digest(&path).ok())).await?
        };
        if found != Some(sha256) {
            tracing::warn!(path = %path.display(), "fetching a damaged file again");
            std::fs::remove_file(&path).map_err(FileError::on("remove", &path))?;
            return Ok(None);
        }
        let header_by = wanted.header.as_ref().map(|seen| seen.file.origin());
        if let (Err(rejection @ Rejection::Retry { .. }), Some(origin)) = (&scanned, header_by) {
            // These bytes are the right ones, so the header was not.
            let trouble = OriginTrouble::OtherBytes;
            self.hub
                .note_trouble(origin, trouble, &rejection.to_string());
        }
        Ok(Some(scanned))
    }

    /// Reads a file that is here.
    async fn scan(&self, wanted: &Wanted, file: std::fs::File, size: u64) -> Judged<Scanned> {
        let (judge, header) = (Arc::clone(&self.judge), wanted.header.clone());
        blocking(move || {
            let mut scan = new_scan(header.as_ref(), &judge);
            feed(&mut scan, file, size)?;
            Ok(scan.finish())
        })
        .await
    }

    /// Fetches what is missing of a file and makes it a blob.
    ///
    /// The hub's bytes are judged as they come. A mirror's are judged in the store, once their hash
    /// was compared; and so are the hub's where they follow a mirror's.
    async fn fetch(&self, wanted: &Wanted, origin: Origin) -> Judged<Fetched> {
        let key = wanted.key();
        let mirrored = key.clone() + "-mirrored";
        let goes_on = self.store.has_staged(&mirrored);
        if !origin.is_mirror() && !goes_on {
            let file = self.at(wanted, origin);
            let (header, staging) = (wanted.header.clone(), self.store.stage(&key)?);
            let fetched = self.receive(wanted, file, header, staging).await?;
            return Ok(fetched.map_or(Fetched::OtherBytes, Fetched::Judged));
        }
        loop {
            let mut staging = self.store.stage(&mirrored)?;
            if staging.length() == 0 {
                staging.take_over(self.store.stage(&key)?)?;
            }
            let resumed = staging.length() > 0;
            let file = self.at(wanted, origin);
            match self.receive(wanted, file, None, staging).await? {
                Some(_) => return Ok(Fetched::ToBeJudged),
                // What was here before may be what is wrong.
                None if resumed => {}
                None => return Ok(Fetched::OtherBytes),
            }
        }
    }

    /// Returns the file at an origin: the one that was asked already knows its way.
    fn at(&self, wanted: &Wanted, origin: Origin) -> Arc<HubFile> {
        if wanted.remote.origin() == origin {
            Arc::clone(&wanted.remote)
        } else {
            Arc::new(self.hub.file_at(&wanted.remote, origin))
        }
    }

    /// Fetches what is missing of a file and makes it a blob, judging it on the way if its header is
    /// given; `None` if it is not what the listing says.
    async fn receive(
        &self,
        wanted: &Wanted,
        file: Arc<HubFile>,
        header: Option<SeenHeader>,
        mut staging: Staging,
    ) -> Judged<Option<Scanned>> {
        let size = file.size();
        if staging.length() > size {
            staging.cut(0)?;
        }
        let start = staging.length();
        self.bar.inc(start);
        // The bytes on their way are in the parts, not in the queue.
        let (parts, queue) = mpsc::channel::<FetchedPart>(1);
        let judge = Arc::clone(&self.judge);
        let writer = blocking(move || {
            let mut scan = new_scan(header.as_ref(), &judge);
            let absorbed = absorb(&mut staging, &mut scan, queue);
            Ok(match absorbed {
                Ok(()) if staging.length() == size => WriteEnd::Whole(staging, scan.finish()),
                Ok(()) => WriteEnd::Short,
                Err(rejection) => WriteEnd::Rejected(staging, rejection, scan.evidence()),
            })
        });
        let fetcher = self.send_parts(&file, start..size, parts);
        let (fetched, written) = tokio::join!(fetcher, writer);
        // A writer that gives up ends the fetching, and the other way round: the cause is the one
        // that was not interrupted.
        match written? {
            WriteEnd::Whole(staging, scanned) => {
                let same = publish(&file, staging, &scanned).await?;
                Ok(same.then_some(scanned))
            }
            WriteEnd::Short => {
                fetched?;
                Err(Rejection::outside(format!(
                    "{}: the download broke off",
                    wanted.path
                )))
            }
            WriteEnd::Rejected(staging, rejection, evidence) => {
                if let Rejection::Refused { .. } = rejection {
                    staging.discard()?;
                    self.confirm(&wanted.path, &file, evidence).await?;
                }
                Err(rejection)
            }
        }
    }

    /// Reads the tensor a refusal rests on once more, in other pieces: bytes that a crash or a
    /// server has garbled must not speak against a model.
    async fn confirm(&self, path: &str, file: &HubFile, evidence: Option<Evidence>) -> Judged<()> {
        let Some(Evidence {
            bytes: Range { start, end },
            crc32,
        }) = evidence
        else {
            return Ok(());
        };
        let reason = format!("{path}: read twice, its bytes differ");
        let _connection = self.hub.http().connection().await;
        if file.lacks_ranges() {
            let same = is_as_listed(&self.hub, file).await?;
            return same.then_some(()).ok_or_else(|| Rejection::outside(reason));
        }
        let mut again = crc32fast::Hasher::new();
        let middle = start + (end - start) / 3;
        for half in [start..middle, middle..end] {
            let mut reader = self.hub.read(file, half);
            while let Some(piece) = reader.next().await? {
                again.update(&piece);
            }
        }
        if again.finalize() == crc32 {
            return Ok(());
        }
        Err(Rejection::outside(reason))
    }

    /// Fetches a range and hands it on in order: over xet if that is wanted and offered, by byte
    /// ranges side by side from where that ended, and from a server without ranges over one
    /// connection.
    async fn send_parts(
        &self,
        file: &HubFile,
        mut range: Range<u64>,
        parts: mpsc::Sender<FetchedPart>,
    ) -> Result<(), HttpError> {
        if self.hub.options().xet && file.offers_xet() {
            range.start = self.send_over_xet(file, range.clone(), &parts).await;
        }
        if !file.lacks_ranges() {
            let mut fetched = std::pin::pin!(self.parts(file, range.clone()));
            while let Some(part) = fetched.next().await {
                let part = match part {
                    Err(_) if file.lacks_ranges() => break,
                    part => part?,
                };
                let bytes = part.0.iter().map(|piece| piece.len() as u64).sum::<u64>();
                if parts.send(part).await.is_err() {
                    return Ok(());
                }
                self.bar.inc(bytes);
                range.start += bytes;
            }
        }
        let _connection = self.hub.http().connection().await;
        let mut reader = self.hub.read(file, range);
        while let Some(piece) = reader.next().await? {
            let bytes = piece.len() as u64;
            if parts.send((vec![piece], None)).await.is_err() {
                return Ok(());
            }
            self.bar.inc(bytes);
        }
        Ok(())
    }

    /// Returns how far it came.
    async fn send_over_xet(
        &self,
        file: &HubFile,
        range: Range<u64>,
        parts: &mpsc::Sender<FetchedPart>,
    ) -> u64 {
        let (sender, mut pieces) = mpsc::channel(1);
        let mut at = range.start;
        let fetch = async move { self.hub.over_xet(file, range, &sender).await };
        let forward = async {
            while let Some(piece) = pieces.recv().await {
                let bytes = piece.len() as u64;
                if parts.send((vec![piece], None)).await.is_err() {
                    return;
                }
                at += bytes;
                self.bar.inc(bytes);
            }
        };
        let (fetched, ()) = tokio::join!(fetch, forward);
        if let Err(error) = fetched {
            tracing::warn!(file = file.name(), %error, at, "xet failed: going on by byte ranges");
        }
        at
    }

    fn parts<'a>(
        &'a self,
        file: &'a HubFile,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<FetchedPart, HttpError>> + 'a {
        let starts = (range.start..range.end).step_by(PART as usize);
        let at_once = self.hub.options().http.connections.max(1);
        stream::iter(starts)
            .map(move |start| async move {
                let connection = self.hub.http().connection().await;
                let part = start..(start + PART).min(range.end);
                Ok((self.hub.part(file, part).await?, connection))
            })
            .buffered(at_once)
    }
}

/// Makes what was fetched a blob, if it is what the listing says; else it is thrown away.
async fn publish(file: &HubFile, staging: Staging, scanned: &Scanned) -> Judged<bool> {
    let digest = scanned.digest;
    if file.sha256().is_some_and(|listed| Digest(listed) != digest) {
        staging.discard()?;
        return Ok(false);
    }
    blocking(move || Ok(staging.commit(&digest)?)).await?;
    Ok(true)
}

/// Writes and scans parts as they come, after what was there before.
fn absorb(
    staging: &mut Staging,
    scan: &mut Scan<'_>,
    mut queue: mpsc::Receiver<FetchedPart>,
) -> Judged<()> {
    let here = staging.length();
    feed(scan, staging.reader()?, here)?;
    while let Some((pieces, _connection)) = queue.blocking_recv() {
        for piece in pieces {
            staging.append(&piece)?;
            scan.update(&piece)?;
        }
    }
    Ok(())
}

fn new_scan<'a>(header: Option<&SeenHeader>, judge: &'a NormJudge) -> Scan<'a> {
    header.map_or_else(Scan::plain, |header| Scan::weights(header, judge))
}

fn feed(scan: &mut Scan<'_>, file: impl Read, length: u64) -> Judged<()> {
    const BLOCK: usize = 1 << 20;
    let mut file = file.take(length);
    let mut block = vec![0; BLOCK];
    loop {
        let read = file.read(&mut block).map_err(|error| {
            Rejection::machine(format!("could not read a file of the store: {error}"))
        })?;
        if read == 0 {
            return Ok(());
        }
        scan.update(&block[..read])?;
    }
}

/// Runs work that computes or waits for the disk on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Judged<T> + Send + 'static,
) -> Judged<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Rejection::machine("the program is stopping")),
    }
}
