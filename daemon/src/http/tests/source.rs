//! A source of literal data.

use crate::bill::report::Waste;
use crate::books::history::Checks;
use crate::books::report::Report;
use crate::books::sizes::Sizes;
use crate::books::syscalls::Syscalls;
use crate::books::why::Question;
use crate::heatmap::report::{Asked, Chart};
use crate::http::source::{Answer, Source};
use crate::hub::{Filter, NoCheck, Roots};
use crate::web::fixture;
use crate::whatif::report::WhatIf;

/// Answers with the fixture of the pages.
pub(super) struct Fixture;

impl Source for Fixture {
    fn report<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Report> {
        Box::pin(async move { filter.apply(fixture::report()) })
    }

    fn waste<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Waste> {
        Box::pin(async move {
            let mut waste = fixture::waste();
            let named = |wanted: &str, entry: &crate::bill::report::Entry| {
                wanted == entry.process || wanted == entry.name || wanted == entry.pid.to_string()
            };
            waste
                .processes
                .retain(|entry| filter.process.as_deref().is_none_or(|p| named(p, entry)));
            waste
        })
    }

    fn sizes<'a>(&'a self, _: &'a Filter) -> Answer<'a, Sizes> {
        Box::pin(async { fixture::sizes() })
    }

    fn syscalls<'a>(&'a self, _: &'a Filter) -> Answer<'a, Syscalls> {
        Box::pin(async { fixture::syscalls() })
    }

    fn whatif<'a>(&'a self, _: &'a Filter) -> Answer<'a, WhatIf> {
        Box::pin(async { fixture::whatif() })
    }

    fn chart<'a>(&'a self, _: &'a Asked) -> Answer<'a, Chart> {
        Box::pin(async { fixture::chart() })
    }

    fn check<'a>(&'a self, wanted: &'a str, roots: Roots) -> Answer<'a, Result<String, NoCheck>> {
        Box::pin(async move {
            match wanted {
                _ if roots == Roots::Strict => Err(NoCheck::Failed("strictly".to_owned())),
                "zoo" => Ok(fixture::report().processes[0].id.clone()),
                "stuck" => Err(NoCheck::Failed("it is stuck".to_owned())),
                _ => Err(NoCheck::Unknown),
            }
        })
    }

    fn why<'a>(
        &'a self,
        wanted: &'a str,
        question: &'a Question,
    ) -> Answer<'a, Result<String, NoCheck>> {
        Box::pin(async move {
            match (wanted, question) {
                ("zoo", Question::Site(site, _)) if site == "none" => {
                    Err(NoCheck::NoSite("there is no site none".to_owned()))
                }
                _ => self.check(wanted, Roots::Own).await,
            }
        })
    }

    fn checks<'a>(&'a self, wanted: &'a str) -> Answer<'a, Option<Checks>> {
        Box::pin(async move { (wanted == "zoo").then(fixture::checks) })
    }

    fn metrics(&self) -> Answer<'_, String> {
        Box::pin(async { "pageshim_build_info 1\n".to_owned() })
    }

    fn ready(&self) -> bool {
        true
    }
}
