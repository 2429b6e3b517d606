//! Switches of faults that a page can turn on and off in a running stack: [`FaultSwitches`].
//!
//! A switch acts at a decorator of this crate: around a sink ([`crate::observer::ObservedSink`]), around the
//! replicator ([`crate::observer::ObservedFunction`]), and in front of the S3 engine. The functions contain no switch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The delay of a slow sink for each batch.
pub const SLOW: Duration = Duration::from_secs(2);

/// A fault of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SinkFault {
    /// The sink works.
    #[default]
    Off,
    /// The sink refuses every change.
    Refuse,
    /// The sink takes [`SLOW`] longer for each batch.
    Slow,
    /// The sink cannot be reached, and does not respond.
    CutOff,
    /// The sink writes every change, and its response is lost.
    ResponseLost,
}

impl SinkFault {
    /// All faults, beginning with none.
    pub const ALL: [Self; 5] = [Self::Off, Self::Refuse, Self::Slow, Self::CutOff, Self::ResponseLost];

    /// Returns the name of the fault in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Refuse => "refuse",
            Self::Slow => "slow",
            Self::CutOff => "cut-off",
            Self::ResponseLost => "response-lost",
        }
    }

    /// Returns the fault with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.as_str() == name)
    }
}

/// The switches; all are off at the start.
#[derive(Debug, Default)]
pub struct FaultSwitches {
    sinks: Mutex<BTreeMap<String, SinkFault>>,
    kill_next: AtomicBool,
    s3_down: Arc<AtomicBool>,
}

impl FaultSwitches {
    fn sinks(&self) -> MutexGuard<'_, BTreeMap<String, SinkFault>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_sink(&self, name: &str) {
        self.sinks().entry(name.to_owned()).or_default();
    }

    /// Returns the fault of a sink.
    #[must_use]
    pub fn sink_fault(&self, name: &str) -> SinkFault {
        self.sinks().get(name).copied().unwrap_or_default()
    }

    /// Sets the fault of a sink. Returns false if there is no sink of this name.
    pub fn set_sink(&self, name: &str, fault: SinkFault) -> bool {
        self.sinks().get_mut(name).map(|current| *current = fault).is_some()
    }

    /// Makes the replicator end in the middle of its next batch, as if its process were killed.
    pub fn kill_next_batch(&self) {
        self.kill_next.store(true, Ordering::Relaxed);
    }

    /// Returns whether the next batch is to be interrupted.
    #[must_use]
    pub fn kills_next_batch(&self) -> bool {
        self.kill_next.load(Ordering::Relaxed)
    }

    /// Returns whether the batch that begins now is to be interrupted; only one batch is.
    pub(crate) fn take_kill(&self) -> bool {
        self.kill_next.swap(false, Ordering::Relaxed)
    }

    /// Makes S3 respond to every request with 503, or work again.
    pub fn set_s3_down(&self, down: bool) {
        self.s3_down.store(down, Ordering::Relaxed);
    }

    /// Returns whether S3 responds to every request with 503.
    #[must_use]
    pub fn is_s3_down(&self) -> bool {
        self.s3_down.load(Ordering::Relaxed)
    }

    /// Returns the switch that the S3 engine reads.
    pub(crate) fn s3_switch(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.s3_down)
    }

    /// Turns every switch off.
    pub fn reset(&self) {
        self.sinks().values_mut().for_each(|fault| *fault = SinkFault::Off);
        self.kill_next.store(false, Ordering::Relaxed);
        self.set_s3_down(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switch_of_an_unknown_sink_is_rejected_and_a_reset_turns_all_off() {
        let switches = FaultSwitches::default();
        switches.add_sink("copy");
        assert!(!switches.set_sink("other", SinkFault::Refuse));
        assert!(switches.set_sink("copy", SinkFault::Refuse));
        switches.set_s3_down(true);
        switches.kill_next_batch();
        assert_eq!(switches.sink_fault("copy"), SinkFault::Refuse);
        switches.reset();
        assert_eq!((switches.sink_fault("copy"), switches.is_s3_down()), (SinkFault::Off, false));
        assert!(!switches.take_kill());
    }

    #[test]
    fn each_fault_has_a_name_of_its_own() {
        for fault in SinkFault::ALL {
            assert_eq!(SinkFault::parse(fault.as_str()), Some(fault));
        }
        assert_eq!(SinkFault::parse("burn"), None);
    }
}
