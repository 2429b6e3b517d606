//! The cache: on a real server, alone and before the table.

mod aside;
mod limit;
mod line;
mod lives;
mod load;
mod proxy;
mod rule;
pub(crate) mod servers;
mod sink;
pub(crate) mod suite;
mod writes;
