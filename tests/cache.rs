//! The cache: on a real server, alone and before the table.

mod line;
pub(crate) mod servers;
mod sink;
