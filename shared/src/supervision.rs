//! What a supervisor says of its child and of updates, asked for by the child's own commands.
//!
//! A child finds its supervisor by [`HOME`] and asks as `supervisor status` does (docs/update-protocol.md). What a
//! later supervisor says beyond this is ignored; what an earlier one does not say is absent.

use std::{fmt, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use crate::term::span;

/// The environment variable that tells a child in which folder its supervisor keeps its things.
pub const HOME: &str = "SUPERVISOR_HOME";

/// The control socket in that folder.
pub const CONTROL_SOCKET: &str = "control.sock";

const MAX_LINE: u64 = 1 << 20;

/// How a supervisor sees its child. Of the fields of `supervisor status --json`, those that are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Supervision {
    pub supervisor: Option<SupervisingProcess>,
    pub child: SupervisedChild,
    pub update: SupervisedUpdate,
}

/// The process of the supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SupervisingProcess {
    pub pid: u32,
    pub version: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SupervisedChild {
    pub state: String,
    pub pid: Option<u32>,
    /// Seconds since it was started or adopted.
    pub uptime: Option<u64>,
    /// Restarts after failures.
    pub restarts: u64,
    pub last_failure: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SupervisedUpdate {
    pub phase: String,
    pub progress: Option<String>,
    pub problem: Option<String>,
    /// Seconds until time alone changes something.
    pub next_in: Option<u64>,
    /// Whether updates are looked for.
    pub enabled: bool,
}

#[derive(Deserialize)]
struct StatusReply {
    status: Supervision,
}

/// Asks the supervisor whose folder this is; an error of kind `NotFound` or `ConnectionRefused` means that none runs.
pub async fn ask(home: &Path, patience: Duration) -> io::Result<Supervision> {
    let request = serde_json::json!({"command": "status"});
    let reply: StatusReply = exchange(&home.join(CONTROL_SOCKET), &request, patience).await?;
    Ok(reply.status)
}

/// Sends one line of JSON to a socket and reads one.
pub async fn exchange<Reply: DeserializeOwned>(
    socket: &Path,
    request: &impl Serialize,
    patience: Duration,
) -> io::Result<Reply> {
    let talk = async {
        let (reader, mut writer) = UnixStream::connect(socket).await?.into_split();
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
        let mut line = String::new();
        BufReader::new(reader.take(MAX_LINE))
            .read_line(&mut line)
            .await?;
        serde_json::from_str(&line).map_err(io::Error::from)
    };
    timeout(patience, talk).await?
}

impl fmt::Display for Supervision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            supervisor,
            child,
            update,
        } = self;
        match supervisor {
            Some(supervisor) => write!(f, "pid {}, {}", supervisor.pid, supervisor.version)?,
            None => f.write_str("not running")?,
        }
        write!(f, "; child {}", child.state)?;
        if let Some(uptime) = child.uptime {
            write!(f, " for {}", span(uptime))?;
        }
        if child.restarts > 0 {
            let last = child.last_failure.as_deref().unwrap_or("unknown");
            write!(f, ", {} restarts, last: {last}", child.restarts)?;
        }
        if !update.enabled {
            return f.write_str("; no updates");
        }
        write!(f, "; update {}", update.phase)?;
        if let Some(progress) = &update.progress {
            write!(f, " ({progress})")?;
        }
        if let Some(next) = update.next_in {
            write!(f, ", next look in {}", span(next))?;
        }
        match &update.problem {
            Some(problem) => write!(f, "; problem: {problem}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::UnixListener, runtime::Runtime};

    use super::*;

    #[test]
    fn an_answer_is_shown_whatever_else_it_holds() {
        let home = tempfile::tempdir().unwrap();
        let (told, asked) = Runtime::new().unwrap().block_on(async {
            let listener = UnixListener::bind(home.path().join(CONTROL_SOCKET)).unwrap();
            let serving = async {
                let (stream, _) = listener.accept().await.unwrap();
                let (reader, mut writer) = stream.into_split();
                let mut asked = String::new();
                BufReader::new(reader).read_line(&mut asked).await.unwrap();
                let answer = r#"{"status":{"format":1,"mood":"good","supervisor":{"pid":7,"version":"0.3.0"},
                    "child":{"state":"running","pid":8,"uptime":3720,"restarts":2,"last_failure":"exit code 70"},
                    "update":{"phase":"building","progress":"45 crates","next_in":9,"enabled":true,"problem":"old"}}}"#;
                let line = answer.replace('\n', " ") + "\n";
                writer.write_all(line.as_bytes()).await.unwrap();
                asked
            };
            tokio::join!(ask(home.path(), Duration::from_mins(1)), serving)
        });
        assert_eq!(asked, "{\"command\":\"status\"}\n");
        let told = told.unwrap();
        assert_eq!(told.child.pid, Some(8));
        assert_eq!(
            told.to_string(),
            "pid 7, 0.3.0; child running for 1 h 2 min, 2 restarts, last: exit code 70; \
             update building (45 crates), next look in 9 s; problem: old"
        );
    }

    #[test]
    fn one_that_is_silent_or_gone_is_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let ask = || {
            let asking = ask(home.path(), Duration::from_millis(1));
            Runtime::new().unwrap().block_on(asking).unwrap_err().kind()
        };
        assert_eq!(ask(), io::ErrorKind::NotFound);
        let runtime = Runtime::new().unwrap();
        let _silent = runtime
            .block_on(async { UnixListener::bind(home.path().join(CONTROL_SOCKET)) })
            .unwrap();
        assert_eq!(ask(), io::ErrorKind::TimedOut);
    }
}
