//! A row as W&B wants it: JSON that may hold bare `NaN`, `Infinity` and `-Infinity`.

use std::collections::BTreeMap;

use serde_json::Value;

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A number; may be NaN or infinite.
    Number(f64),
    /// A text, sent as a JSON string.
    Text(String),
    /// Named values, such as one for each uid.
    Map(BTreeMap<String, Cell>),
}

/// The values of a step by their keys.
pub type Row = BTreeMap<String, Cell>;

impl Cell {
    /// Returns the cell as extended JSON, in one line.
    pub fn json(&self) -> String {
        match self {
            Self::Number(number) if number.is_nan() => "NaN".into(),
            Self::Number(number) if number.is_infinite() && *number > 0.0 => "Infinity".into(),
            Self::Number(number) if number.is_infinite() => "-Infinity".into(),
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                format!("{number:.0}")
            }
            Self::Number(number) => Value::from(*number).to_string(),
            Self::Text(text) => Value::from(text.as_str()).to_string(),
            Self::Map(map) => object(map),
        }
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Returns a row as one line of extended JSON.
pub fn object(row: &Row) -> String {
    let members: Vec<String> = row
        .iter()
        .map(|(key, cell)| format!("{}:{}", Value::from(key.as_str()), cell.json()))
        .collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_are_written_bare() {
        let uids = [
            ("1", 2.5),
            ("2", f64::INFINITY),
            ("3", f64::NAN),
            ("4", f64::NEG_INFINITY),
        ];
        let map = uids
            .into_iter()
            .map(|(uid, loss)| (uid.to_owned(), loss.into()))
            .collect();
        let row = Row::from([
            ("uid_data".into(), Cell::Map(map)),
            ("text".into(), "a\n\"b\"".into()),
            ("_step".into(), 7.0.into()),
        ]);
        assert_eq!(
            object(&row),
            r#"{"_step":7,"text":"a\n\"b\"","uid_data":{"1":2.5,"2":Infinity,"3":NaN,"4":-Infinity}}"#
        );
    }
}
