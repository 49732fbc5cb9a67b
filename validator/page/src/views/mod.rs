//! The views: what each page says, read once for both of its forms.

pub(crate) mod audit;
mod competition;
mod overview;
mod states;
mod step;
mod uid;

use index::IndexError;
use maud::Markup;
use serde::Serialize;

use crate::{Route, Site};

use self::{
    competition::CompetitionPage,
    overview::OverviewPage,
    states::{HealthPage, QueuePage, WeightsPage},
    step::StepPage,
    uid::UidPage,
};

/// What a page says.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum View {
    Overview(OverviewPage),
    Competition(Box<CompetitionPage>),
    Uid(Box<UidPage>),
    Step(Box<StepPage>),
    Weights(WeightsPage),
    Queue(QueuePage),
    Health(Box<HealthPage>),
}

impl View {
    /// Reads what a page needs; `None` if there is no such thing.
    pub(crate) fn read(site: &Site<'_>, route: &Route) -> Result<Option<Self>, IndexError> {
        Ok(match route {
            Route::Overview => Some(Self::Overview(OverviewPage::read(site)?)),
            Route::Competition(number) => {
                CompetitionPage::read(site, *number)?.map(|page| Self::Competition(Box::new(page)))
            }
            Route::Uid(uid) => UidPage::read(site, *uid)?.map(|page| Self::Uid(Box::new(page))),
            Route::Step(step) => {
                StepPage::read(site, *step)?.map(|page| Self::Step(Box::new(page)))
            }
            Route::Weights => Some(Self::Weights(WeightsPage::read(site)?)),
            Route::Queue => Some(Self::Queue(QueuePage::read(site))),
            Route::Health => Some(Self::Health(Box::new(HealthPage::read(site)?))),
        })
    }

    pub(crate) fn title(&self) -> String {
        match self {
            Self::Overview(_) => "Leaders".to_owned(),
            Self::Competition(page) => page.title(),
            Self::Uid(page) => page.title(),
            Self::Step(page) => page.title(),
            Self::Weights(_) => "Weights".to_owned(),
            Self::Queue(_) => "Queue".to_owned(),
            Self::Health(_) => "Health".to_owned(),
        }
    }

    pub(crate) fn html(&self, site: &Site<'_>) -> Markup {
        match self {
            Self::Overview(page) => page.html(),
            Self::Competition(page) => page.html(),
            Self::Uid(page) => page.html(),
            Self::Step(page) => page.html(),
            Self::Weights(page) => page.html(),
            Self::Queue(page) => page.html(),
            Self::Health(page) => page.html(site),
        }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}
