//! Dashboards and rules: what they ask exists, and a real Prometheus answers it.
//!
//! Three depths. The lint needs nothing but the files. promtool (Debian package
//! `prometheus`) judges rules and configuration; without it those cases say so and
//! pass. The last two start a real Prometheus: over an exporter written here from
//! [`catalog::METRICS`], then over the real daemon and shim with a program that allocates.
//!
//! # Design
//! [`catalog::METRICS`] is the exported list, with labels; the sample exporter is made from
//! it, and the end-to-end case holds the daemon to it. Lint rules return sentences,
//! so that one run names every fault, and `lint_notices_each_fault` proves each rule
//! on a spoiled copy. Waiting is always for a condition with a deadline ([`programs::until`]).
//! Imports go down only: `lint_cases, rules, samples, real → prometheus, lint → expressions →
//! catalog`; `programs` imports none of them.

mod catalog;
mod expressions;
mod lint;
mod lint_cases;
mod programs;
mod prometheus;
mod real;
mod rules;
mod samples;
