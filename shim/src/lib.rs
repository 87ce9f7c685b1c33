//! libpageshim.so.
