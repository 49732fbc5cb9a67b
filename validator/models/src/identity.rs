//! What a model is by listing and small files, held against the commitment.

use std::collections::BTreeMap;

use hub::{Hub, Listing, Origin, RepositoryKind, RepositoryName};
use model::ContentHash;

use super::{
    Rejection, Report, Rules, Store,
    claim::{Assertion, judge_claim, judge_listing, place},
    metadata::{Metadata, RepositorySource, SeenHeader},
    rejection::Judged,
    tries::Tries,
};

/// A model whose listing and small files were seen.
pub(super) struct Identity {
    pub(super) repository: RepositoryName,
    pub(super) listing: Listing,
    pub(super) listed_by: Origin,
    pub(super) metadata: Metadata,
    /// The content hash, if the listing names the hash of every file.
    pub(super) foretold: Option<ContentHash>,
}

/// Where models are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) hub: &'a Hub,
    pub(super) store: Option<&'a Store>,
}

impl<'a> Lookup<'a> {
    pub(super) const fn source<'b>(
        self,
        repository: &'b RepositoryName,
        listing: &'b Listing,
        listed_by: Origin,
    ) -> RepositorySource<'b>
    where
        'a: 'b,
    {
        RepositorySource {
            hub: self.hub,
            store: self.store,
            repository,
            listing,
            listed_by,
        }
    }

    /// Asks the hub for the listing, and reads what it and the small files tell. While the hub is
    /// away a mirror's listing will do, if it leads to the very hash of the commitment.
    pub(super) async fn identify(
        self,
        assertion: &Assertion,
        claimed: ContentHash,
        rules: &Rules,
        report: &mut Report,
    ) -> Judged<Identity> {
        let (repository, revision) = place(&assertion.model_id)?;
        let mut tries = Tries::new(self.hub, Origin::Hub, true);
        while let Some(origin) = tries.next() {
            let kind = RepositoryKind::Model;
            let listing = self.hub.listing_of(origin, kind, &repository, revision);
            let listing = match listing.await {
                Ok(listing) => listing,
                Err(error) => {
                    tries.failed(origin, error.into())?;
                    continue;
                }
            };
            let told = async {
                judge_listing(&listing, revision, rules, report)?;
                let source = self.source(&repository, &listing, origin);
                self.held_against(claimed, assertion, source, rules, report)
                    .await
            };
            match told.await {
                Ok((metadata, foretold)) => {
                    tries.served(origin);
                    return Ok(Identity {
                        repository,
                        listing,
                        listed_by: origin,
                        metadata,
                        foretold,
                    });
                }
                // The hub has answered: what is wrong now is not better elsewhere.
                Err(rejection) if !origin.is_mirror() => {
                    tries.served(origin);
                    return Err(rejection);
                }
                Err(rejection) => tries.failed(origin, rejection)?,
            }
        }
        Err(tries.rejection())
    }

    async fn held_against(
        self,
        claimed: ContentHash,
        assertion: &Assertion,
        source: RepositorySource<'_>,
        rules: &Rules,
        report: &mut Report,
    ) -> Judged<(Metadata, Option<ContentHash>)> {
        let metadata = source.metadata(rules.compatibility).await?;
        report.files_of(&metadata);
        let foretold = metadata.content_hash();
        if let Some(hash) = foretold {
            report.claim = Some(judge_claim(claimed, hash, assertion.hotkey, report)?);
        } else if source.listed_by.is_mirror() {
            let mirror = self.hub.address(source.listed_by);
            let reason = format!("{mirror} lists no hash of some files: nothing vouches for them");
            return Err(Rejection::outside(reason));
        }
        Ok((metadata, foretold))
    }

    /// Puts off what rests on the header that a mirror sent: its file was not seen whole.
    pub(super) fn unless_mirrored(
        self,
        rejection: Rejection,
        headers: &BTreeMap<String, SeenHeader>,
    ) -> Rejection {
        let origins = headers.values().map(|seen| seen.file.origin());
        match origins.into_iter().find(|origin| origin.is_mirror()) {
            Some(mirror) => Rejection::outside(format!(
                "{rejection}, by a header that only the mirror {} has sent",
                self.hub.address(mirror)
            )),
            None => rejection,
        }
    }
}
