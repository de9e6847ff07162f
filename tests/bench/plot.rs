//! A picture of each table: a bar for the median of each row, and a line from its minimum to its
//! maximum.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::report::{number, range};
use crate::table::Table;

/// The directory of the pictures, next to the document.
pub(crate) const DIRECTORY: &str = "benchmarks";

/// The picture's measures, in pixels.
const WIDTH: f64 = 760.0;
const NAMES: f64 = 220.0;
const FIGURES: f64 = 70.0;
const ROW: f64 = 26.0;
const MARGIN: f64 = 12.0;

/// The name of a table's picture.
pub(crate) fn file(title: &str) -> String {
    let mut name: String = title
        .chars()
        .filter(|c| *c != ',')
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    name.push_str(".svg");
    name
}

/// Draws all measured tables.
pub(crate) fn all(page: &Path, tables: &[Table]) -> Result<()> {
    let directory = page.with_file_name(DIRECTORY);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("making {}", directory.display()))?;
    for table in tables.iter().filter(|table| !table.rows.is_empty()) {
        let path = directory.join(file(table.title));
        std::fs::write(&path, draw(table))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn draw(table: &Table) -> String {
    let rows: Vec<_> = table
        .rows
        .iter()
        .filter_map(|(name, samples)| {
            let values = samples.iter().map(|sample| sample.value).collect();
            Some((*name, range(values)?))
        })
        .collect();
    let most = rows.iter().map(|(_, [.., high])| *high).fold(0.0, f64::max);
    let scale = (WIDTH - NAMES - FIGURES - 2.0 * MARGIN) / most.max(f64::MIN_POSITIVE);
    let height = 2.0 * MARGIN + ROW * (rows.len() as f64 + 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{MARGIN}\" y=\"{:.1}\" font-weight=\"bold\">{}, {}</text>\n",
        MARGIN + ROW * 0.6,
        table.title,
        table.unit
    );
    for (place, (name, [low, middle, high])) in rows.iter().enumerate() {
        let top = MARGIN + ROW * (place as f64 + 1.0);
        let (text, line) = (top + ROW * 0.65, top + ROW * 0.5);
        let left = MARGIN + NAMES;
        let at = |figure: f64| left + figure * scale;
        let color = if name.starts_with("octoserve") {
            "#2a6fbb"
        } else {
            "#b0b7c0"
        };
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{text:.1}\">{name}</text>\n\
             <rect x=\"{left}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{color}\"/>\n\
             <path d=\"M{:.1} {line:.1}H{:.1}\" stroke=\"#222\"/>\n\
             <text x=\"{:.1}\" y=\"{text:.1}\">{}</text>\n",
            top + 4.0,
            middle * scale,
            ROW - 8.0,
            at(*low),
            at(*high),
            at(*high) + 6.0,
            number(*middle),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Sample;

    #[test]
    fn a_file_s_name_is_the_title_in_plain_letters() {
        assert_eq!(file("Proxies, a blob up"), "proxies-a-blob-up.svg");
    }

    #[test]
    fn the_longest_bar_is_the_highest_median_and_names_are_there() {
        let mut table = Table::new("T", String::new(), "req/s", "µs");
        let sample = |value| Sample {
            value,
            processor: 0.0,
            p99: None,
            resident: 0.0,
        };
        table.rows = vec![
            ("haproxy", vec![sample(50.0)]),
            ("octoserve", vec![sample(100.0)]),
        ];
        let svg = draw(&table);
        assert!(svg.contains(">haproxy</text>") && svg.contains(">octoserve</text>"));
        let room = WIDTH - NAMES - FIGURES - 2.0 * MARGIN;
        assert!(svg.contains(&format!("width=\"{room:.1}\"")), "{svg}");
        assert!(
            svg.contains(&format!("width=\"{:.1}\"", room / 2.0)),
            "{svg}"
        );
    }
}
