//! The hub over a real socket.

mod checks;
mod clients;
mod killed;
mod life;
mod reports;
