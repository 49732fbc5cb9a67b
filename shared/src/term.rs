//! What people see: tables, progress bars, lines. Quiet where standard error is no terminal.

use std::{
    fmt,
    io::{IsTerminal, Write},
    time::Duration,
};

pub use comfy_table::Table;
use comfy_table::{ContentArrangement, LineStyle, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints a line to standard output; colours are stripped where they do not belong. Nobody is there
/// to be told of an output that can't be written.
pub fn line(text: impl fmt::Display) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Prints a line about what is going on to standard error.
pub fn note(text: impl fmt::Display) {
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

/// Makes a table with these column headings.
pub fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UNDERLINED)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings);
    table
}

/// Makes a bar for work of `total` items; hidden where standard error is no terminal.
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
    if std::io::stderr().is_terminal() {
        spinner.enable_steady_tick(Duration::from_millis(120));
    }
    spinner.with_message(what.into())
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::printable;

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
