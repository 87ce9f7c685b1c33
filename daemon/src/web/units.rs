//! Numbers for people: IEC bytes, grouped counts, times, shares.

const STEPS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `1536` reads as `1.5 KiB`. Three digits at most before the point.
pub(crate) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut step = 0;
    // 1023.95 would print as "1024.0": the bound is where rounding would spill over.
    while value >= 1023.5 && step + 1 < STEPS.len() {
        value /= 1024.0;
        step += 1;
    }
    if value < 99.95 {
        format!("{value:.1} {}", STEPS[step])
    } else {
        format!("{value:.0} {}", STEPS[step])
    }
}

/// `1204` reads as `1,204`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,204 blocks`, `1 block`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A duration in the two units that matter.
pub(crate) fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    if seconds < 1e-3 {
        return format!("{:.0} µs", seconds * 1e6);
    }
    if seconds < 0.01 {
        return format!("{:.1} ms", seconds * 1e3);
    }
    if seconds < 1.0 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds as u64;
    match whole {
        ..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

/// `part` of `whole` in percent; zero of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / whole as f64
}

/// `part` of `whole` as `12 %`; a small part is `<1 %`, never `0 %`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let share = share(part, whole);
    if part > 0 && share < 1.0 {
        return "<1 %".to_owned();
    }
    format!("{share:.0} %")
}

/// Reads `512`, `512k`, `1.5MiB`, `2 GB`. Powers of 1024 in every spelling.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let shift = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let bytes = number * (1u64 << shift) as f64;
    (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a number never reads as 1024 of a unit, nor loses its unit. Method: around the steps.
    #[test]
    fn bytes_read_well_around_the_steps() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (1 << 40, "1.0 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    // Goal: counts group, times pick units, shares do not hide small parts. Method: examples.
    #[test]
    fn counts_times_and_shares() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(counted(1, "block"), "1 block");
        assert_eq!(counted(1000, "block"), "1,000 blocks");
        assert_eq!(seconds(0.0131), "13 ms");
        assert_eq!(seconds(0.00126), "1.3 ms");
        assert_eq!(seconds(200.0), "3 min 20 s");
        assert_eq!(seconds(90_000.0), "1 d 1 h");
        assert_eq!(seconds(f64::NAN), "unknown");
        assert_eq!(percent(1, 1000), "<1 %");
        assert_eq!(percent(0, 0), "0 %");
    }

    // Goal: sizes read as people write them; nonsense is refused. Method: examples.
    #[test]
    fn sizes_parse_in_every_spelling() {
        assert_eq!(parse_bytes("512k"), Some(512 << 10));
        assert_eq!(parse_bytes("1MiB"), Some(1 << 20));
        assert_eq!(parse_bytes("1.5 GB"), Some(3 << 29));
        assert_eq!(parse_bytes("7"), Some(7));
        for bad in ["", "MiB", "1x", "-1", "1e99t", "1..2"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
