//! Single-flight per record: concurrent reads of the same record share one table read. A caller that arrives while a
//! read is in flight waits for the next read, which all waiting callers share. It never receives the result of a read
//! that started before its call, so it sees every write that completed before it, by this instance or another.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use millrace_shared::table::TableError;
use millrace_shared::user::User;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

/// The result of a shared read. Its error is shared, too, because [`TableError`] cannot be cloned.
type FlightResult = Result<Option<Arc<User>>, Arc<TableError>>;

#[derive(Default)]
pub(super) struct SingleFlight(Mutex<HashMap<String, Arc<SharedRead>>>);

#[derive(Default)]
struct SharedRead {
    /// Locked by the read that is in flight.
    in_flight: AsyncMutex<()>,
    /// The result of the next read, which has not started.
    next: Mutex<Arc<OnceCell<FlightResult>>>,
}

impl SingleFlight {
    /// Returns the result of `read`, or of another caller's read that started after this call.
    pub(super) async fn join(&self, name: &str, read: impl Future<Output = FlightResult>) -> FlightResult {
        let flight = Arc::clone(self.locked().entry(name.to_owned()).or_default());
        let seat = FlightMember { flights: self, name, flight };
        let flight = &seat.flight;
        let next = Arc::clone(&flight.next.lock().unwrap_or_else(PoisonError::into_inner));
        let put = async {
            let _under_way = flight.in_flight.lock().await;
            flight.start_next(&next);
            read.await
        };
        next.get_or_init(|| put).await.clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<SharedRead>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller's participation in a flight. The last caller to leave, with a result or cancelled, removes the flight from
/// the map.
struct FlightMember<'f> {
    flights: &'f SingleFlight,
    name: &'f str,
    flight: Arc<SharedRead>,
}

impl Drop for FlightMember<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.locked();
        // Only the map and this call still refer to the flight.
        if Arc::strong_count(&self.flight) == 2 {
            flights.remove(self.name);
        }
    }
}

impl SharedRead {
    /// Makes later callers wait for another read.
    fn start_next(&self, departing: &Arc<OnceCell<FlightResult>>) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&next, departing) {
            *next = Arc::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn concurrent_callers_share_two_reads_and_none_gets_a_stale_result() {
        let (flights, table) = (Arc::new(SingleFlight::default()), Arc::new(AtomicUsize::new(0)));
        let reads = Arc::new(AtomicUsize::new(0));
        let mut all = JoinSet::new();
        for caller in 0..100 {
            let (flights, table, reads) = (Arc::clone(&flights), Arc::clone(&table), Arc::clone(&reads));
            all.spawn(async move {
                let before = table.load(Ordering::Relaxed);
                let seen = Arc::new(AtomicUsize::new(usize::MAX));
                let saw = Arc::clone(&seen);
                let read = async move {
                    reads.fetch_add(1, Ordering::Relaxed);
                    saw.store(table.load(Ordering::Relaxed), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    table.fetch_add(1, Ordering::Relaxed);
                    Ok(None)
                };
                flights.join("k", read).await.unwrap();
                let seen = seen.load(Ordering::Relaxed);
                assert!(seen == usize::MAX || seen >= before, "{caller}");
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
        assert_eq!(reads.load(Ordering::Relaxed), 2, "one read for the first caller, one for the 99 others");
        assert!(flights.locked().is_empty(), "no flight is left");
    }

    #[tokio::test]
    async fn cancelled_flight_is_removed_and_the_next_caller_reads() {
        let flights = SingleFlight::default();
        let never = flights.join("k", std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(5), never).await.is_err());
        assert!(flights.locked().is_empty(), "a cancelled flight is removed");
        assert!(matches!(flights.join("k", async { Ok(None) }).await, Ok(None)));
    }
}
