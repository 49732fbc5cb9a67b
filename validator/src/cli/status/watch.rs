//! `validator status --watch`: a live screen.
//!
//! It reads the status file again and again and asks nobody but the supervisor, so it works over ssh, beside a validator
//! that hangs, and of one that is dead. Texts of miners, hubs and nodes are made fit for a terminal before they are drawn.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::Duration,
};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Gauge, Paragraph, Row, Table, Wrap},
};
use shared::{Exit, Failure, term};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    super::runtime::block_on,
    StatusView,
    facts::{device_line, facts},
    shown,
};
use report::{
    rules::Rule,
    status::{self as own, LastStep},
};
use subnet::Uid;

/// How often keys are looked for; the file is read at every fourth look.
const TICK: Duration = Duration::from_millis(250);

/// What is shown of the facts, the most important first: on a small screen the rest is left out.
const LIVE: [&str; 14] = [
    "start",
    "weights",
    "models",
    "sources",
    "disk",
    "supervisor",
    "endpoints",
    "last step",
    "trust",
    "stake",
    "hub",
    "receipt",
    "restart now",
    "version",
];

/// Rows around a table of standings: its border and its headings.
const FRAME_ROWS: u16 = 3;

/// Shows the status until `q`, Escape, Ctrl-C or a signal; leaves the terminal as it was.
pub(super) fn run(path: &Path) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "--watch needs a terminal")
            .hint("without it the status is printed once; --json is for programs"));
    }
    block_on(async {
        let broken = |error: io::Error| {
            Failure::new(Exit::Machine, "the terminal can't be drawn on").caused_by(&error)
        };
        let mut ended = [SignalKind::terminate(), SignalKind::hangup()]
            .map(signal)
            .into_iter()
            .collect::<io::Result<Vec<_>>>()
            .map_err(broken)?;
        let [terminate, hangup] = ended.as_mut_slice() else {
            return Ok(Exit::Bug);
        };
        let mut terminal = ratatui::try_init().map_err(broken)?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0_u32;
        let outcome = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(()),
                _ = hangup.recv() => break Ok(()),
                _ = ticks.tick() => {}
            }
            match look(&mut terminal, path, looks.is_multiple_of(4)).await {
                Ok(true) => break Ok(()),
                Ok(false) => looks = looks.wrapping_add(1),
                Err(error) => break Err(broken(error)),
            }
        };
        // It shows the cursor again.
        drop(terminal);
        ratatui::restore();
        outcome.map(|()| Exit::Ok)
    })
}

/// Handles the keys that came, and draws if it is time to; returns whether that was the end.
async fn look(terminal: &mut DefaultTerminal, path: &Path, mut is_due: bool) -> io::Result<bool> {
    while event::poll(Duration::ZERO)? {
        match event::read()? {
            Event::Key(key) => {
                let interrupt = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                    KeyCode::Char('c') if interrupt => return Ok(true),
                    _ => {}
                }
            }
            Event::Resize(..) => is_due = true,
            _ => {}
        }
    }
    if is_due {
        let found = read(path).await;
        terminal.draw(|frame| draw(frame, &found))?;
    }
    Ok(false)
}

/// Reads the file, or says why it can't be shown.
async fn read(path: &Path) -> Result<StatusView, String> {
    match own::read(path) {
        Ok(Some(status)) => Ok(StatusView::asked(status).await),
        Ok(None) => Err(format!("there is no status file {}", path.display())),
        Err(error) => Err(shared::causes::one_line(&error)),
    }
}

fn draw(frame: &mut Frame<'_>, found: &Result<StatusView, String>) {
    let found = match found {
        Ok(found) => found,
        Err(why) => {
            let text = Paragraph::new(shown(why)).wrap(Wrap { trim: true });
            return frame.render_widget(text, frame.area());
        }
    };
    let details = &found.status.details;
    let screen = Screen::of(found, frame.area());
    let (color, word) = found.light();
    let color = match color {
        anstyle::AnsiColor::Green => Color::Green,
        anstyle::AnsiColor::Yellow => Color::Yellow,
        _ => Color::Red,
    };
    let phase = format!(
        " {}, {} ago",
        shown(&found.status.phase),
        term::span(found.age)
    );
    let light = Line::from(vec![
        Span::styled(format!("● {word}"), Style::new().fg(color).bold()),
        phase.into(),
    ]);
    let [line, progress, wrong, devices, known, standings, keys] =
        Layout::vertical(screen.heights().map(Constraint::Length)).areas(frame.area());
    frame.render_widget(light, line);
    if let Some(round) = details.round {
        let share = round.done as f64 / round.of.max(1) as f64;
        draw_bar(frame, progress, share, round.to_string());
    }
    frame.render_widget(text_of(&screen.problems), wrong);
    for (row, (name, device)) in devices.rows().zip(&details.devices) {
        let line = shown(&device_line(name, device, found));
        draw_bar(frame, row, device.memory_share().unwrap_or(0.0), line);
    }
    frame.render_widget(text_of(&screen.facts), known);
    draw_standings(frame, standings, found);
    frame.render_widget(Line::from("q ends").dim(), keys);
}

fn text_of(lines: &[String]) -> Paragraph<'_> {
    Paragraph::new(
        lines
            .iter()
            .map(|line| Line::from(line.as_str()))
            .collect::<Vec<_>>(),
    )
}

fn draw_bar(frame: &mut Frame<'_>, area: Rect, share: f64, label: String) {
    let bar = Gauge::default()
        .ratio(share.clamp(0.0, 1.0))
        .label(label)
        .gauge_style(Style::new().fg(Color::Cyan).bg(Color::DarkGray));
    frame.render_widget(bar, area);
}

/// What is drawn as text, broken into lines, and how many rows each part has.
struct Screen {
    problems: Vec<String>,
    facts: Vec<String>,
    /// Rows of each device, of the step's progress, and of the standings.
    devices: u16,
    progress: u16,
    standings: u16,
}

impl Screen {
    /// Shares out the screen: a third of what is left belongs to the standings, should they need it.
    fn of(found: &StatusView, area: Rect) -> Self {
        let details = &found.status.details;
        let progress = u16::from(details.round.is_some());
        let mut left = area.height.saturating_sub(2 + progress);
        let mut take = |wanted: usize, most: u16| {
            let taken = (wanted as u16).min(most).min(left);
            left -= taken;
            taken
        };
        let mut problems = wrapped(problems(found).into_iter().map(|line| [line]), area.width);
        problems.truncate(usize::from(take(problems.len(), area.height / 3)));
        let devices = take(details.devices.len(), area.height / 4);
        let models = details.last_steps.values().map(|step| step.models.len());
        let wanted = models.max().map_or(0, |rows| rows as u16 + FRAME_ROWS);
        let all = facts(found);
        let live = LIVE
            .iter()
            .flat_map(|live| all.iter().filter(move |(name, _)| name == live));
        let mut facts = wrapped(
            live.map(|(name, value)| [(*name).to_owned(), shown(value)]),
            area.width,
        );
        let rest = left.saturating_sub(facts.len() as u16);
        let standings = wanted.min(rest.max(left / 3));
        facts.truncate(usize::from(left - standings));
        Self {
            problems,
            facts,
            devices,
            progress,
            standings,
        }
    }

    fn heights(&self) -> [u16; 7] {
        let (problems, facts) = (self.problems.len() as u16, self.facts.len() as u16);
        [
            1,
            self.progress,
            problems,
            self.devices,
            facts,
            self.standings,
            1,
        ]
    }
}

/// Breaks rows into lines of this width.
fn wrapped<const N: usize>(rows: impl Iterator<Item = [String; N]>, width: u16) -> Vec<String> {
    let mut table = term::table([""; N]);
    for row in rows {
        table.add_row(row);
    }
    table.set_width(width);
    // Without the headings.
    table
        .to_string()
        .lines()
        .skip(2)
        .map(ToOwned::to_owned)
        .collect()
}

fn problems(found: &StatusView) -> Vec<String> {
    let alarms = &found.status.details.alarms;
    let mut lines: Vec<String> = alarms
        .iter()
        .map(|(cause, problem)| {
            let remedy = Rule::of(*cause).map_or("", |rule| rule.remedy);
            format!("{cause}: {} ({remedy})", shown(&problem.text))
        })
        .collect();
    let others = found.status.problems.iter().skip(alarms.len());
    lines.extend(others.map(|problem| shown(problem)));
    lines
}

/// Draws the competitions side by side, as many as fit.
fn draw_standings(frame: &mut Frame<'_>, area: Rect, found: &StatusView) {
    let steps: Vec<&LastStep> = found.status.details.last_steps.values().collect();
    let fits = (area.width / 36).max(1) as usize;
    let shown_steps = &steps[..steps.len().min(fits)];
    let areas = Layout::horizontal(shown_steps.iter().map(|_| Constraint::Fill(1))).split(area);
    for (step, area) in shown_steps.iter().zip(areas.iter()) {
        let mut models: Vec<_> = step.models.iter().collect();
        models.sort_by(|(a_uid, a), (b_uid, b)| {
            let rate = b.win_rate.0.total_cmp(&a.win_rate.0);
            rate.then_with(|| a_uid.cmp(b_uid))
        });
        let lines = models.into_iter().map(|(Uid(uid), model)| {
            Row::new([
                uid.to_string(),
                format!("{:.4}", model.loss.0),
                format!("{:.3}", model.win_rate.0),
                format!("{:.4}", model.weight.0),
            ])
        });
        let title = format!(" {} step {} ", shown(&step.competition.0), step.step);
        let table = Table::new(
            lines,
            [
                Constraint::Length(5),
                Constraint::Length(9),
                Constraint::Length(9),
                Constraint::Length(8),
            ],
        )
        .header(Row::new(["uid", "loss", "win rate", "weight"]).bold())
        .block(Block::bordered().title(title));
        frame.render_widget(table, *area);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::{Terminal, backend::TestBackend};
    use report::{
        board::Board,
        status::{Activity, Details, ModelSummary},
    };
    use shared::status::Health;
    use subnet::{CompetitionId, Real};

    use super::*;

    fn text(width: u16, height: u16, found: &Result<StatusView, String>) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, found)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn any_terminal_shows_the_light_and_nothing_steers_it() {
        let competition = CompetitionId::from("l3");
        let model = ModelSummary {
            loss: Real(f64::NAN),
            win_rate: Real(0.5),
            weight: Real(0.25),
        };
        let step = LastStep {
            step: 7,
            competition: competition.clone(),
            block: 1,
            samples: String::new(),
            seconds: 1.0,
            finished_at: jiff::Timestamp::UNIX_EPOCH,
            models: [(Uid(4), model)].into(),
        };
        let (board, alarms) = Board::new(Details {
            last_steps: [(competition.clone(), step)].into(),
            ..Details::default()
        });
        board.device_begins("cuda:0");
        board.device_memory("cuda:0", 31 << 30, 80 << 30);
        board.worker_replaced("cuda:1", "out-of-memory");
        let model = "\u{1b}[2J<script>\u{202e}".repeat(50);
        board.activity(Activity::Evaluating { model, competition });
        board.begin_round(4);
        board.model_done();
        alarms.twin.raise(Health::Red, "another one\u{1b}]0;x\u{7}");
        let status = board.status("test", Duration::from_secs(15));
        let now = status.written_at;
        let mut view = StatusView::at(status, now);
        view.supervision = Some("pid 7, child running".to_owned());
        let found = Ok(view);
        for (width, height) in [(200, 50), (120, 40), (80, 24), (20, 5), (1, 1)] {
            let screen = text(width, height, &found);
            assert!(
                !screen.contains(['\u{1b}', '\u{7}', '\u{202e}']),
                "{screen}"
            );
        }
        // Also on the smallest screen that people have.
        for (width, height) in [(120, 40), (80, 24)] {
            let screen = text(width, height, &found);
            for part in [
                "● red",
                "1 of 4 models done",
                "twin: another one",
                "stop the other validator",
                "cuda:0: 31.00 GiB of 80.00 GiB, computing for ",
                "cuda:1, idle, 1 worker replaced, last: out-of-memory",
                "supervisor",
                "pid 7, child running",
                " l3 step 7 ",
                "NaN",
            ] {
                assert!(screen.contains(part), "{part} is not in\n{screen}");
            }
        }
        let none = text(80, 3, &Err("there is no status file /x".to_owned()));
        assert!(none.contains("there is no status file /x"), "{none}");
    }
}
