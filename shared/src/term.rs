//! What people see: tables, progress bars, lines. Quiet where standard error is not a terminal.

use std::{
    fmt,
    io::{IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use comfy_table::{ContentArrangement, LineStyle, Row, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints a line to standard output; colours are stripped where they do not belong. Nobody is there
/// to be told of an output that can't be written.
pub fn line(text: impl fmt::Display) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Whether the log is for machines: then standard error has JSON lines and nothing else.
static MACHINE: AtomicBool = AtomicBool::new(false);

/// Says that from now on only machines read what is going on.
pub(crate) fn for_machines() {
    MACHINE.store(true, Ordering::Relaxed);
}

/// Returns whether only machines read what is going on.
pub fn is_for_machines() -> bool {
    MACHINE.load(Ordering::Relaxed)
}

/// Prints a line about what is going on to standard error; to machines it is a line of the log.
pub fn note(text: impl fmt::Display) {
    if is_for_machines() {
        return tracing::info!("{text}");
    }
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Returns a text of others, fit for a terminal: what would steer it (control characters, changes
/// of writing direction) is replaced, and no more than `max` characters are shown.
pub fn printable(text: &str, max: usize) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c,
                '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
            )
    };
    let mut shown: String = text
        .chars()
        .take(max)
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

/// Returns a time as people say it.
pub fn span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match seconds {
        0..60 => format!("{rest} s"),
        60..3600 => format!("{minutes} min {rest} s"),
        3600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Prints a value as indented JSON to standard output.
pub fn json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => note(format_args!("could not write JSON: {error}")),
    }
}

/// A line under the headings and nothing else: easy to read, easy to cut.
const UNDERLINED: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table. On a terminal it is no wider than that: cells wrap. Elsewhere every row is one line.
#[derive(Debug)]
pub struct Table(comfy_table::Table);

impl Table {
    pub fn add_row<T: Into<Row>>(&mut self, row: T) {
        self.0.add_row(row);
    }

    /// Makes the table no wider than this, wherever it is shown.
    pub fn set_width(&mut self, width: u16) {
        self.0.set_width(width);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.trim_fmt())
    }
}

/// Makes a table with these column headings.
pub fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(UNDERLINED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings);
    Table(table)
}

/// Makes a bar for work of `total` items; hidden where standard error is not a terminal.
pub fn bar(total: u64, what: impl Into<String>) -> ProgressBar {
    styled(
        ProgressBar::new(total),
        "{msg} {wide_bar} {pos}/{len} {eta}",
    )
    .with_message(what.into())
}

/// Makes a bar for work of `total` bytes.
pub fn byte_bar(total: u64, what: impl Into<String>) -> ProgressBar {
    styled(
        ProgressBar::new(total),
        "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )
    .with_message(what.into())
}

/// Makes a spinner for work of unknown length.
pub fn spinner(what: impl Into<String>) -> ProgressBar {
    let spinner = styled(ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}");
    if std::io::stderr().is_terminal() && !is_for_machines() {
        spinner.enable_steady_tick(Duration::from_millis(120));
    }
    spinner.with_message(what.into())
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() || is_for_machines() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::{printable, table};

    #[test]
    fn a_table_fits_and_has_no_trailing_blanks() {
        for width in [80, 120, 200] {
            let mut wide = table(["uid", "model", "", "note"]);
            wide.add_row([
                "1".to_owned(),
                "a/b ".repeat(40),
                String::new(),
                "x".repeat(150),
            ]);
            wide.add_row(["2", "short", "", ""]);
            wide.set_width(width);
            for line in wide.to_string().lines() {
                assert!(line.chars().count() <= usize::from(width), "{line}");
                assert_eq!(line, line.trim_end());
            }
        }
    }

    #[test]
    fn what_steers_a_terminal_is_replaced() {
        assert_eq!(
            printable("a\u{1b}[2Jb\r\u{202e}ć", 99),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}ć"
        );
        assert_eq!(printable("ćčž", 2), "ćč…");
        assert_eq!(printable("ćč", 2), "ćč");
    }
}
