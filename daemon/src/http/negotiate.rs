//! Which format: extension, then `?format=`, then Accept, then HTML.

/// Formats of `/leaks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A page.
    Html,
    /// The report's schema.
    Json,
    /// One row a site.
    Csv,
    /// For terminals.
    Text,
}

/// In the order we prefer when the client does not care.
const ALL: [(Format, &str, &str); 4] = [
    (Format::Html, "text", "html"),
    (Format::Json, "application", "json"),
    (Format::Csv, "text", "csv"),
    (Format::Text, "text", "plain"),
];

impl Format {
    /// The format `?format=` names.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "html" => Self::Html,
            "json" => Self::Json,
            "csv" => Self::Csv,
            "txt" | "text" => Self::Text,
            _ => return None,
        })
    }

    /// What the Accept header asks for; `None` when we have nothing of it.
    pub(crate) fn accepted(accept: Option<&str>) -> Option<Self> {
        let accept = accept
            .map(str::trim)
            .filter(|accept| !accept.is_empty())
            .unwrap_or("*/*");
        let mut best: Option<(Self, f32)> = None;
        for (format, kind, subtype) in ALL {
            let quality = quality(accept, kind, subtype);
            if quality > best.map_or(0.0, |(_, quality)| quality) {
                best = Some((format, quality));
            }
        }
        best.map(|(format, _)| format)
    }
}

/// True when the client is a browser, or says it likes pages best.
pub(crate) fn wants_html(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| {
        accept.contains("text/html") && Format::accepted(Some(accept)) == Some(Format::Html)
    })
}

/// The quality of the most specific range that matches.
fn quality(accept: &str, kind: &str, subtype: &str) -> f32 {
    let mut best = (0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let rank = match name.split_once('/') {
            Some((a, b)) if a == kind && b == subtype => 3,
            Some((a, "*")) if a == kind => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let q = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok());
        if rank > best.0 {
            best = (rank, q.unwrap_or(1.0));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: quality and specificity decide, our order breaks ties. Method: what clients really send.
    #[test]
    fn accept_headers_of_real_clients() {
        let chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, format) in [
            (None, Some(Format::Html)),
            (Some(""), Some(Format::Html)),
            (Some("*/*"), Some(Format::Html)),
            (Some(chrome), Some(Format::Html)),
            (Some("application/json"), Some(Format::Json)),
            (Some("application/json;q=0.5, text/csv"), Some(Format::Csv)),
            (
                Some("text/*;q=0.3, text/html;q=0, application/json;q=0.2"),
                Some(Format::Csv),
            ),
            (Some("text/plain"), Some(Format::Text)),
            (Some("APPLICATION/JSON"), Some(Format::Json)),
            (Some("image/png"), None),
            (Some("text/html;q=0"), None),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
        assert!(wants_html(Some(chrome)) && !wants_html(Some("*/*")) && !wants_html(None));
    }
}
