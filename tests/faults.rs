//! What goes wrong, and what must not come of it: nothing is acknowledged that a replica lacks, nothing good is
//! quarantined, and once the trouble is over another delivery ends as if there had been none.
//!
//! Faults are decorators, on two levels: around a sink ([`troubled`]) and around the engine's HTTP ([`proxy`]). The
//! code under test has no switch for them.

mod buckets;
mod deliveries;
mod network;
pub(crate) mod proxy;
mod silence;
mod sinks;
pub(crate) mod troubled;
