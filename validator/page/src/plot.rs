//! Plots as SVG: colors come from the style, numbers that are not finite leave gaps.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 48.0;

/// Lines that have a color of their own; the others share one.
const COLORS: usize = 8;

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

/// Lines over steps, with the extremes at the axes.
pub(crate) fn lines(title: &str, series: &[Series]) -> Markup {
    let all = || series.iter().flat_map(|series| &series.points);
    let x = Scale::of(all().map(|(x, _)| *x), MARGIN, WIDTH - 8.0);
    let y = Scale::of(all().map(|(_, y)| *y), HEIGHT - 24.0, 8.0);
    let (Some(x), Some(y)) = (x, y) else {
        return html! { p { "There is nothing to draw yet." } };
    };
    html! {
        svg class="plot" role="img" aria-label=(title) viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) {
            line class="axis" x1=(MARGIN) x2=(MARGIN) y1="8" y2=(HEIGHT - 24.0) {}
            line class="axis" x1=(MARGIN) x2=(WIDTH - 8.0) y1=(HEIGHT - 24.0) y2=(HEIGHT - 24.0) {}
            text x="4" y="16" { (format!("{:.4}", y.high)) }
            text x="4" y=(HEIGHT - 26.0) { (format!("{:.4}", y.low)) }
            text x=(MARGIN) y=(HEIGHT - 6.0) { "step " (x.low) }
            text x=(WIDTH - 8.0) y=(HEIGHT - 6.0) text-anchor="end" { "step " (x.high) }
            @for (number, series) in series.iter().enumerate().rev() {
                path class=(color(number)) d=(path(&series.points, &x, &y)) { title { (series.name) } }
            }
        }
        ul class="legend" {
            @for (number, series) in series.iter().enumerate().take(COLORS) {
                li { span class=(format!("key {}", color(number))) aria-hidden="true" { (PreEscaped("&#9644;")) } " " (series.name) }
            }
            @if series.len() > COLORS { li { (series.len() - COLORS) " more" } }
        }
    }
}

fn color(number: usize) -> String {
    format!("c{}", number.min(COLORS))
}

/// A square for each pair: how often the model of the row is better than that of the column.
pub(crate) fn heat(
    title: &str,
    names: &[String],
    share: impl Fn(usize, usize) -> Option<f64>,
) -> Markup {
    let side = 20.0;
    let size = 60.0 + side * names.len() as f64;
    html! {
        svg class="heat" role="img" aria-label=(title) viewBox=(format!("0 0 {size} {size}")) {
            @for (row, name) in names.iter().enumerate() {
                @let y = 60.0 + side * row as f64;
                text x="56" y=(y + 14.0) text-anchor="end" { (name) }
                text x=(y + 10.0) y="54" text-anchor="middle" { (name) }
                @for (column, other) in names.iter().enumerate() {
                    @if let Some(share) = share(row, column) {
                        rect x=(60.0 + side * column as f64) y=(y) width=(side - 1.0) height=(side - 1.0)
                            fill-opacity=(format!("{:.2}", 0.08 + 0.92 * share)) {
                            title { (name) " against " (other) ": " (format!("{:.0} %", share * 100.0)) }
                        }
                    }
                }
            }
        }
    }
}

/// A dot for each loss of each model.
pub(crate) fn strip(title: &str, rows: &[(String, Vec<f64>)]) -> Markup {
    let Some(x) = Scale::of(
        rows.iter().flat_map(|(_, losses)| losses.iter().copied()),
        64.0,
        WIDTH - 8.0,
    ) else {
        return html! { p { "The losses of single samples are kept for the newest steps only." } };
    };
    let height = 24.0 + 18.0 * rows.len() as f64;
    html! {
        svg class="strip" role="img" aria-label=(title) viewBox=(format!("0 0 {WIDTH} {height}")) {
            @for (number, (name, losses)) in rows.iter().enumerate() {
                @let y = 12.0 + 18.0 * number as f64;
                text x="56" y=(y + 4.0) text-anchor="end" { (name) }
                @for loss in losses.iter().filter(|loss| loss.is_finite()).take(500) {
                    circle cx=(format!("{:.1}", x.at(*loss))) cy=(y) r="2.5" {}
                }
            }
            text x="64" y=(height - 2.0) { (format!("{:.3}", x.low)) }
            text x=(WIDTH - 8.0) y=(height - 2.0) text-anchor="end" { (format!("{:.3}", x.high)) }
        }
    }
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
        assert!(lines("x", &[]).into_string().contains("nothing to draw"));
        let series = Series {
            name: "<script>".into(),
            points: vec![(1.0, 2.0)],
        };
        let text = lines("<b>", &[series]).into_string();
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
}
