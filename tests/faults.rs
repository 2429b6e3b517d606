//! Fault injection. The invariants: a change is acknowledged only if the replica has it, only poison records are
//! quarantined, and once the faults end, a redelivery has the same result as if there had been no faults.
//!
//! Faults are decorators, on two levels: around a sink ([`troubled`]) and around the engine's HTTP ([`proxy`]). The
//! code under test has no switch for them.

mod archive_sink;
mod buckets;
mod deliveries;
mod network;
pub(crate) mod proxy;
mod silence;
mod sinks;
pub(crate) mod troubled;
