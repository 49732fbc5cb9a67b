//! Why a template can't be rendered.

/// What went wrong, and in which line of the template, if that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateError {
    pub(crate) text: String,
    pub(crate) line: Option<usize>,
}

pub(crate) type Outcome<T> = Result<T, TemplateError>;

impl TemplateError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            line: None,
        }
    }

    pub(super) fn at(line: usize, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            line: Some(line),
        }
    }

    /// Adds the line unless a better one is known.
    pub(super) fn in_line(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }
}

/// Refuses.
pub(super) fn fail<T>(text: impl Into<String>) -> Outcome<T> {
    Err(TemplateError::new(text))
}
