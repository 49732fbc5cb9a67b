//! An error as a person reads it: heading, causes one per line, hints, exit code.

use std::{error::Error, fmt, io::Write};

use anstyle::{AnsiColor, Style};

use crate::{Exit, causes, term};

/// A failure on its way to the terminal.
#[derive(Debug, Clone)]
pub struct Failure {
    exit: Exit,
    heading: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl Failure {
    /// Makes a failure from its heading; say what was tried and on what.
    pub fn new(exit: Exit, heading: impl fmt::Display) -> Self {
        Self {
            exit,
            heading: causes::plain(&heading.to_string()),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// Makes a failure from an error and the chain of its sources. Where permissions are at its end, they are the
    /// reason, whatever was tried.
    pub fn of(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(exit, "").caused_by(error);
        failure.heading = failure.causes.remove(0);
        failure
    }

    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(causes::plain(&cause.to_string()));
        self
    }

    /// Adds an error and the chain of its sources as causes. Where permissions are at its end, they are the reason.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn Error + 'static)) -> Self {
        if is_denied(error) {
            self.exit = Exit::Denied;
        }
        self.causes.extend(causes::texts(error));
        self
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    pub const fn exit(&self) -> Exit {
        self.exit
    }

    pub fn heading(&self) -> &str {
        &self.heading
    }

    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Prints the failure to standard error and returns its exit code.
    pub fn print(&self) -> Exit {
        if term::is_for_machines() {
            tracing::error!(
                exit = self.exit.code(),
                causes = self.causes.join("; "),
                hints = self.hints.join("; "),
                "{}",
                self.heading
            );
            return self.exit;
        }
        // The exit code still says it where nothing can be written.
        let _ = write!(anstream::stderr(), "{}", self.render());
        self.exit
    }

    fn render(&self) -> String {
        use fmt::Write as _;
        const ERROR: Style = AnsiColor::Red.on_default().bold();
        const CAUSE: Style = Style::new().dimmed();
        const HINT: Style = AnsiColor::Cyan.on_default().bold();
        let mut text = format!("{ERROR}error{ERROR:#}: {}\n", self.heading);
        for cause in &self.causes {
            let _ = writeln!(text, "  {CAUSE}because{CAUSE:#}: {cause}");
        }
        for hint in &self.hints {
            let _ = writeln!(text, "  {HINT}hint{HINT:#}: {hint}");
        }
        text
    }
}

/// Returns whether a file's permissions are what an error comes from.
fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
            return true;
        }
        next = error.source();
    }
    false
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.heading)?;
        self.causes
            .iter()
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::FileError;

    #[test]
    fn permissions_have_an_exit_code_of_their_own() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = FileError::on("read", std::path::Path::new("/x"))(denied);
        assert_eq!(Failure::of(Exit::Machine, &error).exit(), Exit::Denied);
        let failure = Failure::new(Exit::Config, "could not use /x").caused_by(&error);
        assert_eq!(failure.exit(), Exit::Denied);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = FileError::on("read", std::path::Path::new("/x"))(full);
        assert_eq!(Failure::of(Exit::Machine, &error).exit(), Exit::Machine);
    }

    #[test]
    fn reads_like_a_sentence_with_a_way_out() {
        let inner = std::io::Error::other("disk full");
        let failure = Failure::of(Exit::Machine, &inner)
            .because("/data is full")
            .hint("free some");
        let text = anstream::adapter::strip_str(&failure.render()).to_string();
        assert_eq!(
            text,
            "error: disk full\n  because: /data is full\n  hint: free some\n"
        );
        assert_eq!(failure.exit().code(), 74);
    }
}
