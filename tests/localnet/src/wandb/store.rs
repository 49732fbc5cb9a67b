//! Projects, runs and their files, and the filter language over them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Seconds since 1970 of the first run; each later one is a minute younger.
const EPOCH: f64 = 1_715_000_000.0;

/// All projects by entity and name.
#[derive(Debug, Default)]
pub struct Store {
    projects: BTreeMap<(String, String), Project>,
}

impl Store {
    /// Returns a project, made if need be.
    pub fn project(&mut self, entity: &str, name: &str) -> &mut Project {
        self.projects
            .entry((entity.to_owned(), name.to_owned()))
            .or_default()
    }

    /// Whether reads of a run of this name end with 502.
    pub(super) fn is_broken(&self, run: &str) -> bool {
        let mut runs = self.projects.values().flat_map(|project| &project.runs);
        runs.any(|known| known.broken && known.name == run)
    }

    /// Returns a project if it exists.
    pub fn get(&self, entity: &str, name: &str) -> Option<&Project> {
        self.projects.get(&(entity.to_owned(), name.to_owned()))
    }
}

#[derive(Debug, Default)]
pub struct Project {
    pub runs: Vec<Run>,
}

impl Project {
    /// Finds a run by its id.
    pub fn run(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.name == name)
    }

    /// Finds a run by its id, for changes.
    pub fn run_mut(&mut self, name: &str) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.name == name)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The id of eight characters, which stands in URLs.
    pub name: String,
    pub display_name: String,
    /// `running`, `finished`, `failed`, `crashed`.
    pub state: String,
    /// Config values by key, as `{"value": ...}`.
    pub config: Map<String, Value>,
    /// Lines of files by name, as they were sent.
    pub files: BTreeMap<String, Vec<String>>,
    /// The exit code, once complete.
    pub exit_code: Option<i64>,
    /// Requests of its file stream, heartbeats included.
    pub posts: u32,
    /// Whether its owner pressed Stop.
    pub stopped: bool,
    /// Whether every read of its history ends with 502.
    pub broken: bool,
}

/// The file of history rows.
const HISTORY: &str = "wandb-history.jsonl";

impl Run {
    pub fn new(name: &str, display_name: &str, config: Value) -> Self {
        let mut run = Self {
            name: name.to_owned(),
            display_name: display_name.to_owned(),
            state: "running".to_owned(),
            ..Self::default()
        };
        if let Value::Object(config) = config {
            let wrapped = config
                .into_iter()
                .map(|(key, value)| (key, json!({ "value": value })));
            run.config.extend(wrapped);
        }
        run
    }

    /// Logs a row as a client does: the next step, a time, the run's age.
    pub fn log(&mut self, row: Value) {
        let step = self.last_step() + 1;
        let Value::Object(mut row) = row else { return };
        row.insert("_step".into(), json!(step));
        row.insert("_timestamp".into(), json!(EPOCH + step as f64 * 90.0));
        row.insert("_runtime".into(), json!(step as f64 * 90.0));
        self.files
            .entry(HISTORY.to_owned())
            .or_default()
            .push(Value::Object(row).to_string());
    }

    /// Returns the history rows as they were sent: JSON that may hold bare `NaN` and `Infinity`.
    pub fn history(&self) -> &[String] {
        self.files.get(HISTORY).map_or(&[], Vec::as_slice)
    }

    /// Returns the step of the newest row, -1 without any.
    pub fn last_step(&self) -> i64 {
        self.history()
            .iter()
            .filter_map(|row| step(row))
            .max()
            .unwrap_or(-1)
    }

    /// Returns the rows from `first` on, below `end`, at most `most`.
    pub fn page(&self, first: i64, end: i64, most: usize) -> Vec<&String> {
        let within = |row: &&String| step(row).is_some_and(|step| (first..end).contains(&step));
        self.history().iter().filter(within).take(most).collect()
    }

    /// Takes the body of a file stream request.
    pub(super) fn receive(&mut self, body: &Value) -> Result<(), String> {
        self.posts += 1;
        if self.exit_code.is_some() {
            return Err("the run is complete".to_owned());
        }
        for (name, part) in body["files"].as_object().into_iter().flatten() {
            let offset = part["offset"].as_u64().unwrap_or(0) as usize;
            let lines = self.files.entry(name.clone()).or_default();
            if offset > lines.len() {
                return Err(format!("{name}: line {offset} would leave a hole"));
            }
            let content = part["content"].as_array().into_iter().flatten();
            for (index, line) in content.filter_map(Value::as_str).enumerate() {
                match lines.get_mut(offset + index) {
                    Some(known) => line.clone_into(known),
                    None => lines.push(line.to_owned()),
                }
            }
        }
        if body["complete"] == json!(true) {
            let code = body["exitcode"].as_i64().unwrap_or(0);
            self.exit_code = Some(code);
            let state = if code == 0 { "finished" } else { "failed" };
            state.clone_into(&mut self.state);
        }
        Ok(())
    }

    /// Returns a run as GraphQL shows it; `index` is its place, oldest first.
    pub(super) fn node(&self, index: usize) -> Value {
        let minute = index % 60;
        let summary = self
            .files
            .get("wandb-summary.json")
            .and_then(|lines| lines.first());
        json!({
            "id": format!("UnVuOnYxOi{}", self.name),
            "name": self.name,
            "displayName": self.display_name,
            "state": self.state,
            "config": Value::Object(self.config.clone()).to_string(),
            "summaryMetrics": summary.map_or("{}", String::as_str),
            "systemMetrics": "{}",
            "historyKeys": { "keys": {}, "lastStep": self.last_step() },
            "historyLineCount": self.history().len(),
            "createdAt": format!("2024-05-06T12:{minute:02}:00"),
            "heartbeatAt": format!("2024-05-06T13:{minute:02}:00"),
            "tags": [], "group": null, "jobType": null, "commit": null, "readOnly": false,
            "description": null, "notes": null, "sweepName": null, "projectId": "1",
            "user": { "name": "localnet", "username": "localnet" },
        })
    }
}

/// Reads a row's step; rows may hold tokens that are not JSON, so only the number is looked at.
fn step(row: &str) -> Option<i64> {
    let (_, after) = row.split_once("\"_step\":")?;
    let digits: String = after
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '-')
        .collect();
    digits.parse().ok()
}

/// A filter over runs: `$and`, `$or`, equality, `$ne`, on `state`, `display_name`, `config.KEY`.
#[derive(Debug, Clone)]
pub struct Filter(Value);

impl Filter {
    /// Reads the JSON text of a filter; `None` if it is not JSON.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }

    /// Returns whether a run passes.
    pub fn admits(&self, run: &Run) -> bool {
        admits(&self.0, run)
    }
}

fn admits(filter: &Value, run: &Run) -> bool {
    let each = |value: &Value, run: &Run| -> Vec<bool> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(|part| admits(part, run))
            .collect()
    };
    filter
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| match key.as_str() {
            "$and" => each(value, run).into_iter().all(|passed| passed),
            "$or" => each(value, run).into_iter().any(|passed| passed),
            key => {
                let found = field(run, key);
                match value.get("$ne") {
                    Some(unwanted) => found != *unwanted,
                    None => found == *value,
                }
            }
        })
}

fn field(run: &Run, key: &str) -> Value {
    match key.strip_prefix("config.") {
        Some(key) => {
            let entry = run.config.get(key.strip_suffix(".value").unwrap_or(key));
            entry.map_or(Value::Null, |entry| entry["value"].clone())
        }
        None if key == "state" => json!(run.state),
        None if key == "display_name" || key == "displayName" => json!(run.display_name),
        None if key == "name" => json!(run.name),
        None => Value::Null,
    }
}
