//! Layers, each given its parent: `page` asks the kernel, `gpa` serves blocks.

pub mod accounts;
pub mod gpa;
pub mod page;
