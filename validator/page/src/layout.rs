//! What all pages have: head, navigation, the traffic light, and how single values are shown.

use index::CopyFinding;
use maud::{DOCTYPE, Markup, html};
use shared::{clock, status::Health, term};

use crate::{Form, Route, Site};
use subnet::{Real, Uid};

/// The longest text of a stranger on a page; the JSON has all of it.
const MAX_SHOWN: usize = 120;

/// So many lines of an answer, each of so many characters.
const MAX_LINES: usize = 60;
const MAX_LINE: usize = 2000;

/// Puts a page around its content.
pub(crate) fn page(site: &Site<'_>, route: &Route, title: &str, content: &Markup) -> String {
    let header = html! {
        header {
            // As a file it is written once, whatever the validator does later.
            @if site.is_live || !matches!(route, Route::Step(_) | Route::Uid(_)) { (light(site)) }
            nav aria-label="Pages" {
                ul {
                    @for (name, to) in [
                        ("Leaders", Route::Overview), ("Weights", Route::Weights),
                        ("Queue", Route::Queue), ("Health", Route::Health),
                    ] {
                        @let here = (to == *route).then_some("page");
                        li { a href=(to.file(Form::Html)) aria-current=[here] { (name) } }
                    }
                }
            }
        }
    };
    let json = route.file(Form::Json);
    document(title, &json, site.is_live, &header, content)
}

/// A page that belongs to no site.
pub(crate) fn alone(title: &str, json: &str, content: &Markup) -> String {
    document(title, json, false, &html! {}, content)
}

fn document(title: &str, json: &str, is_live: bool, header: &Markup, content: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (text(title)) " - validator" }
                link rel="stylesheet" href="style.css";
                link rel="alternate" type="application/json" href=(json);
                @if is_live { script src="live.js" defer {} }
            }
            body {
                a class="skip" href="#main" { "To the content" }
                (header)
                main id="main" { h1 { (text(title)) } (content) }
                footer { p { "This page as " a href=(json) { "JSON" } ". Times are UTC." } }
            }
        }
    }
    .into_string()
}

fn light(site: &Site<'_>) -> Markup {
    let Some(status) = &site.status else {
        return html! { p id="state" { span class="light red" { "no status" } " the validator has left none that can be read" } };
    };
    let now = clock::unix_seconds();
    let (class, word) = match status.health {
        _ if status.is_stale(now) => ("red", "stale"),
        Health::Green => ("green", "green"),
        Health::Yellow => ("yellow", "yellow"),
        Health::Red => ("red", "red"),
    };
    html! {
        p id="state" {
            span class=(format!("light {class}")) { (word) }
            " " (text(&status.phase))
            span class="quiet" { ", " (term::span(status.age(now))) " ago" }
        }
    }
}

/// A text that a stranger may have chosen, fit to be read.
pub(crate) fn text(text: &str) -> String {
    term::printable(text, MAX_SHOWN)
}

/// A longer text of a stranger, with its lines.
pub(crate) fn lines(text: &str) -> Markup {
    html! {
        @for (number, line) in text.lines().take(MAX_LINES).enumerate() {
            @if number > 0 { br; }
            (term::printable(line, MAX_LINE))
        }
    }
}

/// Two models that behave alike.
pub(crate) fn near_copy(pair: &CopyFinding) -> Markup {
    html! {
        "uid " (uid_link(pair.second)) " and the earlier uid " (uid_link(pair.first)) ": "
        (format!("{:.1e}", pair.distance)) " apart on the median sample"
    }
}

/// `namespace/name` of a commitment.
pub(crate) fn repository(model: &str) -> String {
    let name: Vec<&str> = model.splitn(3, ':').take(2).collect();
    text(&name.join("/"))
}

/// The address of a commitment's repository on the hub, if its parts are names and nothing else.
pub(crate) fn hub_link(model: &str) -> Option<String> {
    let mut parts = model.split(':');
    let (namespace, name, revision) = (parts.next()?, parts.next()?, parts.next()?);
    let is_name = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.len() < 100 && part.chars().all(plain) && !part.contains("..")
    };
    let all = [namespace, name, revision].into_iter().all(is_name);
    all.then(|| format!("https://huggingface.co/{namespace}/{name}/tree/{revision}"))
}

pub(crate) fn loss(value: Real) -> String {
    match value.0 {
        value if value.is_finite() && value.abs() < 1e9 => format!("{value:.4}"),
        value if value.is_nan() => "nan".to_owned(),
        _ => "inf".to_owned(),
    }
}

/// A loss of a model that may not have raced.
pub(crate) fn loss_of(value: Real, matches: u32) -> String {
    if value.0.is_nan() && matches == 0 {
        "\u{2013}".to_owned()
    } else {
        loss(value)
    }
}

pub(crate) fn uid_link(uid: Uid) -> Markup {
    html! { a href=(Route::Uid(uid).file(Form::Html)) { (uid) } }
}

pub(crate) fn step_link(step: u64) -> Markup {
    html! { a href=(Route::Step(step).file(Form::Html)) { (step) } }
}

/// A table; headings that end in `#` are of numbers. On a phone, rows of many columns with texts become cards: their
/// cells are named by `data-label`, and roles tell screen readers that it is a table all the same.
pub(crate) fn table(
    caption: &str,
    headings: &[&str],
    rows: impl IntoIterator<Item = Vec<Markup>>,
) -> Markup {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return html! { p class="quiet" { (caption) ": none yet." } };
    }
    let has_texts = headings.iter().any(|heading| !heading.ends_with('#'));
    let class = match (has_texts, headings.len()) {
        (false, _) => "narrow",
        (true, ..4) => "plain",
        (true, _) => "cards",
    };
    let names = || headings.iter().map(|heading| heading.trim_end_matches('#'));
    html! {
        div class="wide" tabindex="0" role="region" aria-label=(caption) {
            table class=(class) role="table" {
                thead role="rowgroup" {
                    tr role="row" {
                        @for (heading, name) in headings.iter().zip(names()) {
                            @let number = heading.ends_with('#').then_some("n");
                            th scope="col" role="columnheader" class=[number] { (name) }
                        }
                    }
                }
                tbody role="rowgroup" {
                    @for row in rows {
                        tr role="row" {
                            @for ((cell, heading), name) in row.into_iter().zip(headings).zip(names()) {
                                @let label = (class == "cards").then_some(name);
                                td role="cell" class=(if heading.ends_with('#') { "n" } else { "w" })
                                    data-label=[label] { (cell) }
                            }
                        }
                    }
                }
            }
        }
    }
}
