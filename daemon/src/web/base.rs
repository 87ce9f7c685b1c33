//! What every page has around it: what `base.html` needs to draw it.

use super::assets::{ASSETS, Assets};

/// The same for all pages, but for where they lie and how often they refresh.
pub(crate) struct Base<'a> {
    /// Style, script and icon.
    pub(crate) assets: &'static Assets,
    /// The way up to `/`, as relative links have it.
    pub(crate) root: &'a str,
    /// In one file, without form and script.
    pub(crate) standalone: bool,
    /// The style sheet of such a file.
    pub(crate) css: &'static str,
    /// Seconds between refreshes; 0 is never.
    pub(crate) refresh: u32,
}

impl<'a> Base<'a> {
    /// A page that lies beside `/`.
    pub(crate) fn served(refresh: u32) -> Self {
        Self {
            assets: &ASSETS,
            root: "",
            standalone: false,
            css: "",
            refresh,
        }
    }

    /// A page from which `root` leads to `/`.
    pub(crate) fn below(root: &'a str) -> Self {
        Self {
            root,
            ..Self::served(0)
        }
    }

    /// A file that needs no server.
    pub(crate) fn standalone() -> Self {
        Self {
            standalone: true,
            css: ASSETS.style.body,
            ..Self::served(0)
        }
    }
}
