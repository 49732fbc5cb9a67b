//! An error and its causes, as texts.

use std::error::Error;

/// Returns the texts of an error and of its causes, the outermost first. Libraries often repeat the
/// inner error in the text of the outer one: what was said before is left out.
pub fn texts(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    texts
}

/// Returns an error and its causes in one line.
pub fn one_line(error: &dyn Error) -> String {
    texts(error).join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn every_cause_is_told_once() {
        let chain = ["could not read x: disk full", "disk full", "error 28"];
        let error = chain
            .into_iter()
            .rev()
            .fold(None, |source, text| Some(Box::new(Link { text, source })));
        let error = error.unwrap();
        assert_eq!(one_line(&*error), "could not read x: disk full: error 28");
    }
}
