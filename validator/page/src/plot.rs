//! Plots as SVG: colors come from the style, numbers that are not finite leave gaps.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;

/// Room for half of a line or dot.
const EDGE: f64 = 4.0;

/// Lines that have a color of their own; the others share one.
const COLORS: usize = 8;

/// More lines than this hide each other.
const MOST_LINES: usize = 64;

const MOST_DOTS: usize = 500;

/// A line of a plot.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// From values to places.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        (low <= high).then_some(Self {
            low,
            high,
            from,
            to,
        })
    }

    fn at(&self, value: f64) -> f64 {
        let span = self.high - self.low;
        let share = if span > 0.0 {
            (value - self.low) / span
        } else {
            0.5
        };
        self.from + share * (self.to - self.from)
    }
}

/// Returns the points as SVG has them; a gap begins a new line.
fn path(points: &[(f64, f64)], x: &Scale, y: &Scale) -> String {
    let mut path = String::new();
    let mut is_open = false;
    for (at, value) in points {
        if value.is_finite() && at.is_finite() {
            let command = if is_open { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", x.at(*at), y.at(*value));
        }
        is_open = value.is_finite();
    }
    path
}

/// A line as tall as a word. The numbers are in the row that it stands in.
pub(crate) fn sparkline(values: &[f64]) -> Markup {
    let points: Vec<(f64, f64)> = (0_u32..)
        .map(f64::from)
        .zip(values.iter().copied())
        .collect();
    let x = Scale::of(points.iter().map(|(x, _)| *x), 1.0, 79.0);
    let y = Scale::of(values.iter().copied(), 17.0, 1.0);
    html! {
        @if let (Some(x), Some(y)) = (x, y) {
            svg class="spark" viewBox="0 0 80 18" aria-hidden="true" { path d=(path(&points, &x, &y)) {} }
        }
    }
}

/// Puts the ends of the axes around a drawing, as texts of the page: inside of it they would shrink with the screen.
fn framed(title: &str, y: (&str, &str), x: (&str, &str), drawing: &Markup) -> Markup {
    html! {
        figure role="img" aria-label=(title) {
            div class="y" { span { (y.0) } span { (y.1) } }
            (drawing)
            div class="x" { span { (x.0) } span { (x.1) } }
        }
    }
}

/// Lines over steps or blocks, with the extremes at the axes; the first have colors of their own.
pub(crate) fn lines(title: &str, unit: &str, series: &[Series]) -> Markup {
    let is_drawn = |series: &&Series| series.points.iter().any(|(_, y)| y.is_finite());
    let series: Vec<&Series> = series.iter().filter(is_drawn).take(MOST_LINES).collect();
    let all = || series.iter().flat_map(|series| &series.points);
    let x = Scale::of(all().map(|(x, _)| *x), 0.0, WIDTH);
    let y = Scale::of(all().map(|(_, y)| *y), HEIGHT - EDGE, EDGE);
    let (Some(x), Some(y)) = (x, y) else {
        return html! { p class="quiet" { "There is nothing to draw yet." } };
    };
    let drawing = html! {
        svg class="plot" aria-hidden="true" preserveAspectRatio="none" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) {
            @for (number, series) in series.iter().enumerate().rev() {
                path class=(color(number)) d=(path(&series.points, &x, &y)) { title { (series.name) } }
            }
        }
    };
    let low = (y.low < y.high).then(|| format!("{:.4}", y.low));
    html! {
        (framed(title, (&format!("{:.4}", y.high), low.as_deref().unwrap_or("")),
            (&format!("{unit} {}", x.low), &format!("{unit} {}", x.high)), &drawing))
        @if series.len() > 1 {
            ul class="legend" {
                @for (number, series) in series.iter().enumerate().take(COLORS) {
                    li { span class=(format!("key {}", color(number))) aria-hidden="true" { (PreEscaped("&#9644;")) } " " (series.name) }
                }
                @if series.len() > COLORS { li { (series.len() - COLORS) " more" } }
            }
        }
    }
}

fn color(number: usize) -> String {
    format!("c{}", number.min(COLORS))
}

/// How often the model of the row is better than that of the column: a table whose cells are colored by what they say.
pub(crate) fn heat(
    title: &str,
    names: &[String],
    share: impl Fn(usize, usize) -> Option<f64>,
) -> Markup {
    html! {
        div class="wide" tabindex="0" role="region" aria-label=(title) {
            table class="heat" {
                thead { tr {
                    th scope="col" { "uid" }
                    @for name in names { th scope="col" { (name) } }
                } }
                tbody {
                    @for (row, name) in names.iter().enumerate() {
                        tr {
                            th scope="row" { (name) }
                            @for column in 0..names.len() {
                                @match share(row, column) {
                                    Some(share) => {
                                        td class=(format!("h{:.0}", share * 10.0)) { (format!("{:.0}", share * 100.0)) }
                                    }
                                    None => td {},
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A dot for each loss of each model, and a line at the median. Dots are spread over the height of their row, so that
/// many in one place are seen as many.
pub(crate) fn strip(title: &str, rows: &[(String, Vec<f64>)]) -> Markup {
    let all = rows.iter().flat_map(|(_, losses)| losses.iter().copied());
    let Some(x) = Scale::of(all, EDGE, WIDTH - EDGE) else {
        return html! { p class="quiet" { "The losses of single samples are kept for the newest steps only." } };
    };
    let drawing = html! {
        div class="rows" {
            @for (name, losses) in rows {
                span { (name) }
                svg class="strip" aria-hidden="true" preserveAspectRatio="none" viewBox=(format!("0 0 {WIDTH} 24")) {
                    path class="dots" d=(dots(losses, &x)) {}
                    @if let Some([_, _, median, ..]) = quartiles(losses) {
                        @let at = x.at(median);
                        path class="median" d=(format!("M{at:.1} 1V23")) {}
                    }
                }
            }
        }
    };
    framed(
        title,
        ("", ""),
        (&format!("{:.3}", x.low), &format!("{:.3}", x.high)),
        &drawing,
    )
}

/// Returns dots as lines without length, whose round ends keep their shape at any width.
fn dots(losses: &[f64], x: &Scale) -> String {
    let mut dots = String::new();
    for (number, loss) in losses.iter().take(MOST_DOTS).enumerate() {
        if loss.is_finite() {
            // Any order that does not look like one.
            let y = 4 + number * 7 % 17;
            let _ = write!(dots, "M{:.1} {y}h0", x.at(*loss));
        }
    }
    dots
}

/// Returns least, lower quartile, median, upper quartile and largest of what is finite.
pub(crate) fn quartiles(losses: &[f64]) -> Option<[f64; 5]> {
    let mut finite: Vec<f64> = losses.iter().copied().filter(|x| x.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    let last = finite.len().checked_sub(1)?;
    Some([0, 1, 2, 3, 4].map(|quarter| finite[last * quarter / 4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_leaves_a_gap_and_nothing_is_drawn_of_nothing() {
        let text = sparkline(&[1.0, f64::NAN, 2.0, f64::INFINITY, 3.0]).into_string();
        assert_eq!(text.matches('M').count(), 3, "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert_eq!(sparkline(&[f64::NAN]).into_string(), "");
        assert!(
            lines("x", "step", &[])
                .into_string()
                .contains("nothing to draw")
        );
        let series = Series {
            name: "<script>".into(),
            points: vec![(1.0, 2.0)],
        };
        let text = lines("<b>", "step", &[series]).into_string();
        assert!(
            !text.contains("<script>") && !text.contains("<b>"),
            "{text}"
        );
        assert!(
            strip("x", &[("a".into(), vec![f64::NAN])])
                .into_string()
                .contains("newest steps")
        );
    }

    #[test]
    fn quartiles_are_of_what_is_finite() {
        assert_eq!(quartiles(&[f64::NAN, f64::INFINITY]), None);
        assert_eq!(quartiles(&[3.0]), Some([3.0; 5]));
        let losses = [5.0, f64::NAN, 1.0, 3.0, 2.0, 4.0];
        assert_eq!(quartiles(&losses), Some([1.0, 2.0, 3.0, 4.0, 5.0]));
    }

    #[test]
    fn axes_name_their_unit_and_a_line_without_a_number_has_no_place_in_the_legend() {
        let line = |name: &str, value: f64| Series {
            name: name.into(),
            points: vec![(7.0, value), (9.0, value)],
        };
        let series = [line("a", 1.0), line("b", f64::NAN), line("c", 2.0)];
        let text = lines("x", "block", &series).into_string();
        assert!(
            text.contains("block 7") && text.contains("block 9"),
            "{text}"
        );
        assert_eq!(text.matches("<li>").count(), 2, "{text}");
    }
}
