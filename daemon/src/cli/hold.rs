//! `pageshim hold`: the daemon's helper that stops threads; see [`crate::hold`].

use clap::Args;

use super::print;
use crate::hold::lend;
use crate::hold::order::Order;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to do, as JSON
    order: String,
}

pub(crate) fn main(options: &Options) -> Result<(), String> {
    let order: Order = serde_json::from_str(&options.order)
        .map_err(|error| format!("hold is for the daemon, which sends an order: {error}"))?;
    let outcome = lend::carry_out(&order);
    let line = serde_json::to_string(&outcome).map_err(|error| error.to_string())?;
    print::out(&(line + "\n"));
    Ok(())
}
