//! How a report looks: text, CSV, folded stacks and HTML. Pure: a report in, a string out.

pub(crate) mod assets;
pub(crate) mod bar;
pub(crate) mod base;
mod choice;
pub(crate) mod csv;
pub(crate) mod findings;
mod fingerprint;
pub(crate) mod folded;
pub(crate) mod headline;
pub(crate) mod junit;
pub(crate) mod leaks_page;
pub(crate) mod lost;
pub(crate) mod names;
pub(crate) mod overview_page;
pub(crate) mod pages_page;
pub(crate) mod query;
pub(crate) mod sarif;
pub(crate) mod sizes_page;
pub(crate) mod syscalls_page;
pub(crate) mod text;
pub(crate) mod units;
pub(crate) mod view;
pub(crate) mod waste_page;
pub(crate) mod whatif_page;
pub(crate) mod whatif_text;
pub(crate) mod why_page;
pub(crate) mod why_text;
pub(crate) mod words;

#[cfg(test)]
pub(crate) mod fixture;
