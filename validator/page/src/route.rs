//! Which page an address or a file name means.

use subnet::Uid;

/// A page. All lie in one folder, so that links work on an address, in a bucket and from a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Overview,
    /// By its place among the competitions, in order of their names: a name may not be one of a file.
    Competition(usize),
    Uid(Uid),
    Step(u64),
    Weights,
    Queue,
    Health,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Html,
    Json,
}

impl Route {
    /// Returns the page of a path, without its first `/`.
    pub fn of(name: &str) -> Option<(Self, Form)> {
        if name.is_empty() {
            return Some((Self::Overview, Form::Html));
        }
        let (stem, form) = match name.rsplit_once('.')? {
            (stem, "html") => (stem, Form::Html),
            (stem, "json") => (stem, Form::Json),
            _ => return None,
        };
        let route = match stem.split_once('-') {
            None => match stem {
                "index" => Self::Overview,
                "weights" => Self::Weights,
                "queue" => Self::Queue,
                "health" => Self::Health,
                _ => return None,
            },
            Some(("competition", number)) => Self::Competition(number.parse().ok()?),
            Some(("uid", uid)) => Self::Uid(Uid(uid.parse().ok()?)),
            Some(("step", step)) => Self::Step(step.parse().ok()?),
            Some(_) => return None,
        };
        Some((route, form))
    }

    /// Returns the name of the page's file.
    pub fn file(&self, form: Form) -> String {
        let stem = match self {
            Self::Overview => "index".to_owned(),
            Self::Competition(number) => format!("competition-{number}"),
            Self::Uid(uid) => format!("uid-{uid}"),
            Self::Step(step) => format!("step-{step}"),
            Self::Weights => "weights".to_owned(),
            Self::Queue => "queue".to_owned(),
            Self::Health => "health".to_owned(),
        };
        match form {
            Form::Html => format!("{stem}.html"),
            Form::Json => format!("{stem}.json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_found_by_the_name_of_its_file_and_nothing_else_is() {
        let routes = [
            Route::Overview,
            Route::Competition(1),
            Route::Uid(Uid(7)),
            Route::Step(99),
            Route::Weights,
            Route::Queue,
            Route::Health,
        ];
        for route in routes {
            for form in [Form::Html, Form::Json] {
                assert_eq!(Route::of(&route.file(form)), Some((route.clone(), form)));
            }
        }
        for wrong in [
            "uid-x.html",
            "uid-99999.html",
            "../x.html",
            "step-1",
            "secret.json",
            "uid--1.html",
            "%2e",
        ] {
            assert_eq!(Route::of(wrong), None, "{wrong}");
        }
    }
}
