//! `validator status --watch`: a live screen.
//!
//! It reads the status file again and again and asks nobody, so it works over ssh, beside a validator that hangs, and
//! of one that is dead. Texts of miners, hubs and nodes are made fit for a terminal before they are drawn.

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
use shared::{Exit, Failure, clock};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{super::runtime::block_on, StatusView, rows, shown};
use report::{
    rules::Rule,
    status::{self as own, LastStep},
};
use subnet::Uid;

/// How often keys are looked for; the file is read at every fourth look.
const TICK: Duration = Duration::from_millis(250);

/// Shows the status until `q`, Escape, Ctrl-C or a signal; leaves the terminal as it was.
pub(super) fn run(path: &Path) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "--watch needs a terminal")
            .hint("without it the status is printed once; --json is for programs"));
    }
    block_on(async {
        let broken = |error: io::Error| {
            Failure::new(Exit::Machine, "the terminal can't be drawn on").because(error)
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
            match look(&mut terminal, path, looks.is_multiple_of(4)) {
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
fn look(terminal: &mut DefaultTerminal, path: &Path, mut is_due: bool) -> io::Result<bool> {
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
        let found = read(path);
        terminal.draw(|frame| draw(frame, &found))?;
    }
    Ok(false)
}

/// Reads the file, or says why it can't be shown.
fn read(path: &Path) -> Result<StatusView, String> {
    match own::read(path) {
        Ok(Some(status)) => Ok(StatusView::at(status, clock::unix_seconds())),
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
    let problems = problems(found);
    let facts = rows(&found.status);
    // Long problems take two lines.
    let heights = [1, 1, problems.len().min(8) as u16 * 2, facts.len() as u16];
    let [light, progress, wrong, known, standings, keys] = Layout::vertical([
        Constraint::Length(heights[0]),
        Constraint::Length(heights[1]),
        Constraint::Length(heights[2]),
        Constraint::Length(heights[3]),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let (color, word) = found.light();
    let color = match color {
        anstyle::AnsiColor::Green => Color::Green,
        anstyle::AnsiColor::Yellow => Color::Yellow,
        _ => Color::Red,
    };
    let phase = format!(" {}, {} s ago", shown(&found.status.phase), found.age);
    let light_line = Line::from(vec![
        Span::styled(format!("● {word}"), Style::new().fg(color).bold()),
        phase.into(),
    ]);
    frame.render_widget(light_line, light);
    if let Some(round) = found.status.details.round {
        let share = round.done as f64 / round.of.max(1) as f64;
        let gauge = Gauge::default()
            .ratio(share.clamp(0.0, 1.0))
            .label(round.to_string())
            .gauge_style(Color::Cyan);
        frame.render_widget(gauge, progress);
    }
    let wrong_text = Paragraph::new(problems).wrap(Wrap { trim: true });
    frame.render_widget(wrong_text, wrong);
    let facts = facts
        .into_iter()
        .map(|(name, value)| Row::new([name.to_owned(), shown(&value)]));
    let table = Table::new(facts, [Constraint::Length(12), Constraint::Min(10)]);
    frame.render_widget(table, known);
    draw_standings(frame, standings, found);
    frame.render_widget(Line::from("q ends").dim(), keys);
}

fn problems(found: &StatusView) -> Vec<Line<'static>> {
    let alarms = &found.status.details.alarms;
    let mut lines: Vec<Line<'static>> = alarms
        .iter()
        .map(|(cause, problem)| {
            let remedy = Rule::of(*cause).map_or("", |rule| rule.remedy);
            Line::from(format!("{cause}: {} ({remedy})", shown(&problem.text)))
        })
        .collect();
    let others = found.status.problems.iter().skip(alarms.len());
    lines.extend(others.map(|problem| Line::from(shown(problem))));
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
        let model = "\u{1b}[2J<script>\u{202e}".repeat(50);
        board.activity(Activity::Evaluating { model, competition });
        board.begin_round(4);
        board.model_done();
        alarms.twin.raise(Health::Red, "another one\u{1b}]0;x\u{7}");
        let status = board.status("test", Duration::from_secs(15));
        let now = status.written_at;
        let found = Ok(StatusView::at(status, now));
        for (width, height) in [(200, 50), (120, 40), (80, 24), (20, 5), (1, 1)] {
            let screen = text(width, height, &found);
            assert!(
                !screen.contains(['\u{1b}', '\u{7}', '\u{202e}']),
                "{screen}"
            );
        }
        let screen = text(120, 40, &found);
        for part in [
            "● red",
            "1 of 4 models done",
            "twin: another one",
            "stop the other validator",
            " l3 step 7 ",
            "NaN",
        ] {
            assert!(screen.contains(part), "{part} is not in\n{screen}");
        }
        let none = text(80, 3, &Err("there is no status file /x".to_owned()));
        assert!(none.contains("there is no status file /x"), "{none}");
    }
}
