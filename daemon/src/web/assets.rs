//! Style, script and icon, served under names that carry their content's hash.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// One file a page may refer to.
pub(crate) struct Asset {
    /// `style.0123456789abcdef.css`.
    pub(crate) name: String,
    /// Content type.
    pub(crate) kind: &'static str,
    /// What it holds.
    pub(crate) body: &'static str,
}

/// All assets, with the fields templates name.
pub(crate) struct Assets {
    /// The style sheet.
    pub(crate) style: Asset,
    /// Copy buttons and refresh.
    pub(crate) script: Asset,
    /// The icon in the tab.
    pub(crate) icon: Asset,
}

/// The assets of this build.
pub(crate) static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: asset(
        "style",
        "css",
        "text/css; charset=utf-8",
        include_str!("../../assets/style.css"),
    ),
    script: asset(
        "app",
        "js",
        "text/javascript; charset=utf-8",
        include_str!("../../assets/app.js"),
    ),
    icon: asset(
        "icon",
        "svg",
        "image/svg+xml",
        include_str!("../../assets/icon.svg"),
    ),
});

fn asset(stem: &str, extension: &str, kind: &'static str, body: &'static str) -> Asset {
    let hash = Sha256::digest(body.as_bytes());
    let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    Asset {
        name: format!("{stem}.{hex}.{extension}"),
        kind,
        body,
    }
}

/// The asset of that name.
pub(crate) fn find(name: &str) -> Option<&'static Asset> {
    let all = [&ASSETS.style, &ASSETS.script, &ASSETS.icon];
    all.into_iter().find(|asset| asset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: names carry a hash and are found by it, no other name is. Method: round trip.
    #[test]
    fn assets_are_found_by_their_hashed_name() {
        let name = &ASSETS.style.name;
        assert!(find(name).is_some_and(|asset| asset.body.contains("prefers-color-scheme")));
        assert!(find("style.css").is_none());
        assert!(find("../Cargo.toml").is_none());
    }
}
