//! The books: state in, reports out. No IO, no clock, no tokio, no axum.

pub mod report;
