//! The pages of a validator, made on the server: they work without scripts, in a folder as on an address.
//!
//! Miners, hubs and nodes choose many of the texts. Everything is escaped (maud does it), what would steer a reader's
//! eyes (direction marks, control characters) is replaced, long texts are cut, and [`POLICY`] lets a browser load
//! nothing but our own style and script. Each page has a twin of JSON, and each plot a table behind it.

mod layout;
mod plot;
mod route;
mod views;

use index::{Index, IndexError};
use report::{audit::AuditReport, status::Status};
use serde::Serialize;

pub use route::{Form, Route};

/// What a browser may load and do: our own style, script and messages, and nothing of anybody else.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The style of all pages.
pub const STYLE: &str = include_str!("style.css");

/// Renews a page when something has happened; nothing needs it.
pub const SCRIPT: &str = include_str!("live.js");

/// What pages are made of.
#[derive(Debug)]
pub struct Site<'a> {
    pub index: &'a Index,
    /// As it is now; none if it can't be read.
    pub status: Option<Status>,
    pub queue: Vec<Queued>,
    /// Whether pages renew themselves: on an address, not in a folder.
    pub is_live: bool,
}

/// A commitment, and how far it is.
#[derive(Debug, Clone, Serialize)]
pub struct Queued {
    pub uid: u16,
    pub model: String,
    /// `verified`, `refused` or `waiting`.
    pub stage: String,
    pub reason: Option<String>,
    pub again_at: Option<jiff::Timestamp>,
}

/// Makes the page of an audit, or its twin of JSON: `audit.html` and `audit.json`, which stand alone.
pub fn audit(report: &AuditReport, form: Form) -> String {
    match form {
        Form::Json => serde_json::json!(report).to_string(),
        Form::Html => {
            let content = views::audit::html(report);
            layout::alone(views::audit::TITLE, "audit.json", &content)
        }
    }
}

impl Site<'_> {
    /// Makes a page, or its twin of JSON; `None` if there is no such thing.
    pub fn page(&self, route: &Route, form: Form) -> Result<Option<String>, IndexError> {
        let Some(view) = views::View::read(self, route)? else {
            return Ok(None);
        };
        Ok(Some(match form {
            Form::Json => view.json(),
            Form::Html => layout::page(self, route, &view.title(), &view.html(self)),
        }))
    }

    /// Returns every page that there is, with so many of the newest steps: the files of a static site.
    pub fn routes(&self, steps: usize) -> Result<Vec<Route>, IndexError> {
        let mut routes = vec![Route::Overview, Route::Weights, Route::Queue, Route::Health];
        let leaders = self.index.leaders()?;
        let mut uids = std::collections::BTreeSet::new();
        for (number, leaders) in leaders.iter().enumerate() {
            routes.push(Route::Competition(number));
            uids.extend(leaders.standings.iter().map(|row| row.uid));
        }
        uids.extend(self.index.refusals(None, 256)?.iter().map(|row| row.uid));
        routes.extend(uids.into_iter().map(Route::Uid));
        let newest = self.index.steps(None, steps)?;
        routes.extend(newest.iter().map(|head| Route::Step(head.step)));
        Ok(routes)
    }
}
