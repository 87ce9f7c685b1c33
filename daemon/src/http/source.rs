//! Who answers: the hub, behind a trait, so that routes are tested without one.

use std::future::Future;
use std::pin::Pin;

use crate::bill::report::Waste;
use crate::books::history::Checks;
use crate::books::report::Report;
use crate::books::sizes::Sizes;
use crate::books::syscalls::Syscalls;
use crate::books::why::Question;
use crate::heatmap::report::{Asked, Chart};
use crate::hub::{Filter, Hub, NoCheck, Roots};
use crate::whatif::report::WhatIf;

/// An answer that takes its time.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the routes need to know.
pub(crate) trait Source: Send + Sync + 'static {
    /// The filtered report.
    fn report<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Report>;
    /// The bills.
    fn waste<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Waste>;
    /// The size classes.
    fn sizes<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Sizes>;
    /// The bills of system calls.
    fn syscalls<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Syscalls>;
    /// What it would cost elsewhere, and advice.
    fn whatif<'a>(&'a self, filter: &'a Filter) -> Answer<'a, WhatIf>;
    /// A picture of a heap.
    fn chart<'a>(&'a self, asked: &'a Asked) -> Answer<'a, Chart>;
    /// Checks a running process for lost blocks; its id.
    fn check<'a>(&'a self, wanted: &'a str, roots: Roots) -> Answer<'a, Result<String, NoCheck>>;
    /// Checks a running process, and looks for a chain of pointers; its id.
    fn why<'a>(
        &'a self,
        wanted: &'a str,
        question: &'a Question,
    ) -> Answer<'a, Result<String, NoCheck>>;
    /// The last checks of a process.
    fn checks<'a>(&'a self, wanted: &'a str) -> Answer<'a, Option<Checks>>;
    /// The metrics text.
    fn metrics(&self) -> Answer<'_, String>;
    /// Are new processes accepted?
    fn ready(&self) -> bool;
}

impl Source for Hub {
    fn report<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Report> {
        Box::pin(Hub::report(self, filter))
    }

    fn waste<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Waste> {
        Box::pin(Hub::waste(self, filter))
    }

    fn sizes<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Sizes> {
        Box::pin(Hub::sizes(self, filter))
    }

    fn syscalls<'a>(&'a self, filter: &'a Filter) -> Answer<'a, Syscalls> {
        Box::pin(Hub::syscalls(self, filter))
    }

    fn whatif<'a>(&'a self, filter: &'a Filter) -> Answer<'a, WhatIf> {
        Box::pin(Hub::whatif(self, filter))
    }

    fn chart<'a>(&'a self, asked: &'a Asked) -> Answer<'a, Chart> {
        Box::pin(Hub::chart(self, asked))
    }

    fn check<'a>(&'a self, wanted: &'a str, roots: Roots) -> Answer<'a, Result<String, NoCheck>> {
        Box::pin(Hub::check(self, wanted, roots))
    }

    fn why<'a>(
        &'a self,
        wanted: &'a str,
        question: &'a Question,
    ) -> Answer<'a, Result<String, NoCheck>> {
        Box::pin(Hub::why(self, wanted, question))
    }

    fn checks<'a>(&'a self, wanted: &'a str) -> Answer<'a, Option<Checks>> {
        Box::pin(Hub::checks(self, wanted))
    }

    fn metrics(&self) -> Answer<'_, String> {
        Box::pin(Hub::metrics(self))
    }

    fn ready(&self) -> bool {
        Hub::ready(self)
    }
}
