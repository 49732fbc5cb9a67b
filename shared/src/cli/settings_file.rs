//! The file of `--config`: TOML, or the YAML that the Python validator wrote.

use std::path::Path;

use serde_yaml_ng::Value;

use crate::{Exit, Failure, file};

const MAX_BYTES: u64 = 1 << 20;

/// A key with its values; those of groups are joined by dots, as flags are named.
pub(super) type Setting = (String, Vec<String>);

/// Reads TOML (by extension) or YAML whose keys are the flags, grouped at their dots or not.
pub(super) fn read(path: &Path) -> Result<Vec<Setting>, Failure> {
    let refused = |problem: String| refused(path).because(problem);
    let bytes = file::read_limited(path, MAX_BYTES)
        .map_err(|error| self::refused(path).caused_by(&error))?
        .ok_or_else(|| refused("there is no such file".to_owned()))?;
    let text = String::from_utf8(bytes).map_err(|error| refused(error.to_string()))?;
    let value: Value = if path.extension() == Some("toml".as_ref()) {
        toml::from_str(&text).map_err(|error| refused(error.to_string()))?
    } else {
        serde_yaml_ng::from_str(&text).map_err(|error| refused(error.to_string()))?
    };
    let mut settings = Vec::new();
    flatten("", &value, &mut settings).map_err(refused)?;
    Ok(settings)
}

/// Says that a file gives no settings.
pub(super) fn refused(path: &Path) -> Failure {
    Failure::new(
        Exit::Config,
        format_args!("could not use {}", path.display()),
    )
}

fn flatten(key: &str, value: &Value, settings: &mut Vec<Setting>) -> Result<(), String> {
    match value {
        Value::Mapping(entries) => {
            for (name, value) in entries {
                let name = name
                    .as_str()
                    .ok_or_else(|| format!("a key under {key:?} is not a text"))?;
                let path = if key.is_empty() {
                    name.to_owned()
                } else {
                    format!("{key}.{name}")
                };
                flatten(&path, value, settings)?;
            }
        }
        // What is not set is as if it were not there.
        Value::Null => {}
        Value::Sequence(values) => {
            let values: Result<_, _> = values.iter().map(|value| scalar(key, value)).collect();
            settings.push((key.to_owned(), values?));
        }
        value => settings.push((key.to_owned(), vec![scalar(key, value)?])),
    }
    Ok(())
}

fn scalar(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(switch) => Ok(switch.to_string()),
        _ => Err(format!("{key} has a value that no flag takes")),
    }
}
