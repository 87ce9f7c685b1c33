//! What comes in from other processes: a socket, frames, a memfd. All of it hostile.
//!
//! # Design
//! [`socket`] binds, [`handshake`] turns a stream into an [`Arrival`] or a
//! [`Refusal`] in words, [`frames`] cuts the stream into checked frames inside
//! a bounded buffer, [`memfd`] reads shared state with `pread` (never mapped:
//! a peer that truncates its file must not fault the daemon).
#![allow(unreachable_pub, reason = "a binary: pub marks what other rooms use")]

pub mod frames;
pub mod handshake;
pub mod memfd;
pub mod refusal;
pub mod socket;

pub use handshake::{Arrival, greet};
pub use memfd::SharedState;
pub use refusal::Refusal;
