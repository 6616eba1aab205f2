//! Charts as SVG: bars for systems side by side, lines for what grows with something.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const MARGIN: f64 = 16.0;
const LEFT: f64 = 150.0;
/// Room for a number behind the longest bar.
const RIGHT: f64 = 90.0;
const BAR: f64 = 18.0;
/// Told apart also without colour vision (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];

/// A value per system under one heading.
pub struct Group {
    pub heading: String,
    pub bars: Vec<(String, f64)>,
}

/// What one system gave at several places.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Bars in groups; each group has a scale of its own, so that small figures can be read beside large ones.
pub fn bars(title: &str, groups: &[Group]) -> String {
    let mut body = String::new();
    let mut y = 44.0;
    for Group { heading, bars } in groups {
        text(&mut body, MARGIN, y + 12.0, "start", true, heading);
        y += 20.0;
        let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for (at, (name, value)) in bars.iter().enumerate() {
            let length = (WIDTH - LEFT - RIGHT) * value / longest;
            text(&mut body, LEFT - 8.0, y + 13.0, "end", false, name);
            let colour = COLOURS[at % COLOURS.len()];
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{y}" width="{length:.1}" height="{BAR}" fill="{colour}"/>"#
            );
            text(&mut body, LEFT + length + 6.0, y + 13.0, "start", false, &figure(*value));
            y += BAR + 4.0;
        }
        y += 14.0;
    }
    whole(title, y, &body)
}

/// Lines over one horizontal axis; places are spaced evenly, whatever lies between them.
pub fn lines(title: &str, across: &str, up: &str, series: &[Series]) -> String {
    let (top, bottom, right) = (64.0, 330.0, WIDTH - MARGIN - RIGHT);
    let mut places: Vec<f64> =
        series.iter().flat_map(|one| one.points.iter().map(|(x, _)| *x)).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let highest = series.iter().flat_map(|one| one.points.iter().map(|(_, y)| *y));
    let highest = highest.fold(f64::MIN_POSITIVE, f64::max);
    let left = 70.0;
    let step = (right - left) / (places.len().max(2) - 1) as f64;
    let across_at = |x: f64| {
        left + step * places.iter().position(|place| *place == x).unwrap_or_default() as f64
    };
    let up_at = |y: f64| bottom - (bottom - top) * y / highest;
    let mut body = String::new();
    text(&mut body, MARGIN, 50.0, "start", false, up);
    for quarter in 0..=4 {
        let value = highest * f64::from(quarter) / 4.0;
        let y = up_at(value);
        let _ = writeln!(
            body,
            r##"<line x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="#cccccc"/>"##
        );
        text(&mut body, left - 8.0, y + 4.0, "end", false, &figure(value));
    }
    for place in &places {
        text(&mut body, across_at(*place), bottom + 18.0, "middle", false, &figure(*place));
    }
    text(&mut body, (left + right) / 2.0, bottom + 40.0, "middle", false, across);
    for (at, one) in series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: Vec<String> = one
            .points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", across_at(*x), up_at(*y)))
            .collect();
        let _ = writeln!(
            body,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2.5"/>"#,
            points.join(" ")
        );
        if let Some((x, y)) = one.points.last() {
            text(&mut body, across_at(*x) + 8.0, up_at(*y) + 4.0, "start", false, &one.name);
        }
    }
    whole(title, bottom + 56.0, &body)
}

/// Three digits that count, as a person writes them.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn text(to: &mut String, x: f64, y: f64, anchor: &str, bold: bool, what: &str) {
    let weight = if bold { r#" font-weight="bold""# } else { "" };
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(to, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}"{weight}>{what}</text>"#);
}

fn whole(title: &str, height: f64, body: &str) -> String {
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
"##
    );
    text(&mut svg, MARGIN, 26.0, "start", true, title);
    svg.push_str(body);
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_room_and_half_of_it_is_half_as_long() {
        let bars = bars(
            "A < B & C",
            &[Group { heading: "µs".into(), bars: vec![("a".into(), 4.0), ("b".into(), 2.0)] }],
        );
        assert!(bars.contains(r#"width="480.0""#) && bars.contains(r#"width="240.0""#), "{bars}");
        assert!(bars.contains("A &lt; B &amp; C"), "{bars}");
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let points = vec![(0.0, 1.0), (10.0, 2.0), (100.0, 4.0)];
        let lines = lines("t", "x", "y", &[Series { name: "a".into(), points }]);
        assert!(lines.contains(r#"points="70.0,263.5 342.0,197.0 614.0,64.0""#), "{lines}");
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in
            [(0.0, "0"), (0.444, "0.44"), (12.34, "12.3"), (4000.0, "4000"), (123.4, "123")]
        {
            assert_eq!(figure(value), text);
        }
    }
}
