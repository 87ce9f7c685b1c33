//! End-to-end cases and house rules.
