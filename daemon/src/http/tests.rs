//! Every route over a real connection: the router on a free port, a fixture behind it.

mod guards;
mod process;
mod routes;
mod server;
mod source;
