//! Quantities for people.

use std::time::Duration;

/// Bytes with a binary unit: `93.1 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // As it will be printed: 1023.96 KiB is 1.0 MiB.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration in seconds or milliseconds: `1.23 s`, `45.6 ms`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 1.0 { format!("{seconds:.2} s") } else { format!("{:.1} ms", seconds * 1e3) }
}

/// `1 token`, `2 tokens`.
pub fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Peak over lower bound; 1 where there is nothing.
pub fn ratio(peak: u64, lower_bound: u64) -> f64 {
    if lower_bound == 0 { 1.0 } else { peak as f64 / lower_bound as f64 }
}

/// Lines of cells as columns: the first left-aligned, the others as `right` says by index; no
/// space at the end of a line.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if right.contains(&column) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pick_their_unit() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (97_600_000, "93.1 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn durations_pick_their_unit() {
        assert_eq!(duration(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(duration(Duration::from_millis(1234)), "1.23 s");
    }

    #[test]
    fn counts_know_the_singular() {
        assert_eq!(count(1, "kernel"), "1 kernel");
        assert_eq!(count(0, "kernel"), "0 kernels");
    }

    #[test]
    fn tables_align() {
        let rows = [["name", "bytes"], ["a", "12"], ["longer", "3"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| cell.to_string()).collect()).collect();
        assert_eq!(table(&rows, &[1]), "name    bytes\na          12\nlonger      3\n");
        assert_eq!(table(&rows, &[]), "name    bytes\na       12\nlonger  3\n");
        assert_eq!(table(&[], &[]), "");
    }
}
