//! Figures as people read them: durations and byte counts with at most two units.
//!
//! Invariants: short enough for a cell of a table; a figure of 0 is shown as 0, never left out.

/// `1.5s`, `2m05s`, `3h07m`.
pub fn short_duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{:.1}s", ms as f64 / 1e3),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `512 B`, `1.5 KiB`, `3.1 TiB`.
pub fn short_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// `17`, `9.9k`, `1.82M`.
pub fn short_count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{:.1}k", count as f64 / 1e3),
        _ => format!("{:.2}M", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_units() {
        assert_eq!(short_duration(1_540), "1.5s");
        assert_eq!(short_duration(125_000), "2m05s");
        assert_eq!(short_duration(11_220_000), "3h07m");
        assert_eq!(short_bytes(512), "512 B");
        assert_eq!(short_bytes(1536), "1.5 KiB");
        assert_eq!(short_bytes(3 << 40), "3.0 TiB");
        assert_eq!((short_count(9_999), short_count(12_340)), ("9999".to_owned(), "12.3k".to_owned()));
        assert_eq!(short_count(1_820_000), "1.82M");
    }
}
