//! The connections to one server: [`ConnectionPool`].
//!
//! A TLS handshake costs as much CPU time as a hundred requests. A pool therefore opens one connection first, whose TLS
//! session the others resume, and opens another one if a request has waited longer than a handshake takes. If the
//! server is nearby, connections are opened one at a time, with pauses, so that handshakes take at most a quarter of
//! the CPU time. If it is in another Region, a handshake is mostly network latency, so the number of connections
//! doubles with each round, within the same limit of CPU time. More connections do not help if the server or this process
//! is busy: then exchanges take longer than they did when no other was in progress, and connections are opened slowly. The
//! most recently used idle connection is used first, so that surplus connections reach the idle timeout and are closed.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::{ConnectError, ConnectTarget, ExchangeError, HttpConnection};
use crate::response::ReceivedResponse;

/// The time after which an unused connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// The time after which a connection may have been closed by the server without notice: an execution environment is
/// frozen between invocations.
const DOUBTFUL_AFTER: Duration = Duration::from_millis(500);
/// The shortest time that a request waits before another connection is opened for it.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);
/// The longest time that a request waits before another connection is opened for it. A handshake that takes longer
/// consists of waiting for a server in another Region.
const MAX_WAIT: Duration = Duration::from_millis(20);
/// The pause after an established connection, in CPU times of its handshake: a quarter of the time is for handshakes.
const PAUSE_HANDSHAKES: u32 = 3;
/// The longest pause after an established connection.
const MAX_PAUSE: Duration = Duration::from_millis(50);
/// The number of exchanges, if no more connections are open, whose shortest shows whether the server is busy.
const WINDOW_EXCHANGES: usize = 4;
/// The factor by which all exchanges are longer than one alone if the server is busy.
const BUSY_FACTOR: u32 = 3;
/// The pause after a connection that was not established, while others are open.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);
/// The pauses before a failed connection is attempted again, and after that it is an error of the waiting requests.
const RECONNECT_PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];

/// Connections to one server, which are opened when requests wait for one.
#[derive(Clone)]
pub(crate) struct ConnectionPool(Arc<SharedPool>);

struct SharedPool {
    target: ConnectTarget,
    max_connections: usize,
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    /// The unused connections, the last used one at the end. If there are any, no request waits.
    idle: Vec<(HttpConnection, Instant)>,
    /// The number of established connections, used or not.
    open: usize,
    /// The number of connections that are being opened.
    connecting: usize,
    /// The requests that wait for a connection, in their order.
    waiting: VecDeque<WaitingRequest>,
    /// Whether a task opens connections for the requests that wait.
    is_growing: bool,
    handshake: Option<HandshakeTime>,
    /// The earliest time of the next connection attempt, while a connection is open.
    pause_until: Option<Instant>,
    /// The time of the last connection that was established.
    established_at: Option<Instant>,
    exchanges: ExchangeTimes,
    /// Whether a task closes old connections.
    is_swept: bool,
}

struct WaitingRequest {
    since: Instant,
    sender: oneshot::Sender<Result<ConnectionLease, ConnectError>>,
}

/// The duration of connection attempts that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HandshakeTime {
    /// The duration of the shortest one: the others include the time in which this process did something else.
    total: Duration,
    /// The time in which this process was busy with the last one.
    busy: Duration,
}

/// The durations of exchanges, which show whether the server or this process is busy.
#[derive(Debug, Default)]
struct ExchangeTimes {
    /// Whether all connections were unused when the exchanges that are in progress began.
    is_first: bool,
    /// The duration of the last exchange that no other preceded: the first that ended after all connections were unused.
    alone: Option<Duration>,
    /// The number of exchanges that began together with that one and belong to no window.
    together: usize,
    /// The shortest exchange of the present window, and the number of its exchanges.
    shortest: Option<Duration>,
    number: usize,
    /// Whether all exchanges of the last window were long.
    is_busy: bool,
}

impl ExchangeTimes {
    /// Records an exchange over one of `open` connections.
    fn record(&mut self, duration: Duration, open: usize) {
        if mem::take(&mut self.is_first) {
            self.alone = Some(duration);
            (self.together, self.shortest, self.number) = (open, None, 0);
        }
        if self.together > 0 {
            self.together -= 1;
            return;
        }
        self.shortest = Some(self.shortest.map_or(duration, |shortest| shortest.min(duration)));
        self.number += 1;
        if self.number >= open.max(WINDOW_EXCHANGES) {
            self.is_busy =
                self.alone.zip(self.shortest).is_some_and(|(alone, shortest)| shortest > alone * BUSY_FACTOR);
            (self.shortest, self.number) = (None, 0);
        }
    }
}

/// The use of a connection for one request. A lease that is dropped before the response is complete closes its
/// connection.
pub(crate) struct ConnectionLease {
    pool: ConnectionPool,
    connection: Option<HttpConnection>,
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").field("host", &self.0.target.host).finish_non_exhaustive()
    }
}

impl PoolState {
    /// Returns the time that a request waits before another connection is opened for it.
    fn wait(&self) -> Duration {
        self.handshake.map_or(SHORTEST_WAIT, |handshake| handshake.total.clamp(SHORTEST_WAIT, MAX_WAIT))
    }

    /// Returns the number of connections that may be opened at the same time.
    fn connecting_limit(&self) -> usize {
        let distant = self.handshake.filter(|handshake| handshake.total > MAX_WAIT);
        let parallel = distant.map_or(1, |handshake| {
            let busy = handshake.busy.as_micros() * u128::from(1 + PAUSE_HANDSHAKES);
            usize::try_from(handshake.total.as_micros() / busy.max(1)).unwrap_or(usize::MAX)
        });
        self.open.min(parallel).max(1)
    }

    /// Records the duration of a successful connection attempt, unless it exceeds `limit`: the execution environment
    /// was frozen in the meantime.
    fn record(&mut self, sample: HandshakeTime, limit: Duration, now: Instant) {
        if sample.total > limit {
            return;
        }
        let total = self.handshake.map_or(sample.total, |known| known.total.min(sample.total));
        self.handshake = Some(HandshakeTime { total, busy: sample.busy });
        self.pause_until = Some(now + (sample.busy * PAUSE_HANDSHAKES).min(MAX_PAUSE));
        self.established_at = Some(now);
    }
}

impl ConnectionPool {
    /// Creates a pool of at most `max_connections`, without opening one.
    pub(crate) fn new(target: ConnectTarget, max_connections: usize) -> Self {
        let max_connections = max_connections.max(1);
        Self(Arc::new(SharedPool { target, max_connections, state: Mutex::default() }))
    }

    /// Returns a connection that no other request uses, as soon as there is one.
    pub(crate) async fn lease(&self) -> Result<ConnectionLease, ConnectError> {
        loop {
            let is_doubtful = |(_, since): &(HttpConnection, Instant)| since.elapsed() >= DOUBTFUL_AFTER;
            if self.state().idle.last().is_some_and(is_doubtful) {
                // The runtime receives what has happened to the connections in the meantime.
                yield_now().await;
            }
            let waiting = {
                let mut state = self.state();
                state.exchanges.is_first |= state.idle.len() == state.open && state.waiting.is_empty();
                while let Some((mut connection, since)) = state.idle.pop() {
                    // The task that closes old connections may have been frozen.
                    if since.elapsed() < IDLE_TIMEOUT && connection.is_alive() {
                        return Ok(ConnectionLease { pool: self.clone(), connection: Some(connection) });
                    }
                    state.open -= 1;
                }
                let (sender, receiver) = oneshot::channel();
                state.waiting.push_back(WaitingRequest { since: Instant::now(), sender });
                self.open_more(state);
                receiver
            };
            // The pool drops no sender without a result, except with a panic.
            if let Ok(leased) = waiting.await {
                return leased;
            }
        }
    }

    /// Opens a connection if there is none, or lets a task open more if the requests continue to wait. Tasks are
    /// started without the lock, because a runtime that shuts down drops them at once.
    fn open_more(&self, mut state: MutexGuard<'_, PoolState>) {
        if state.waiting.is_empty() {
            return;
        }
        let established = state.open + state.connecting;
        let is_first = established == 0;
        let is_new = !is_first && !state.is_growing && established < self.0.max_connections;
        state.connecting += usize::from(is_first);
        state.is_growing |= is_new;
        drop(state);
        if is_first {
            self.spawn_connect();
        } else if is_new {
            self.spawn_growth();
        }
    }

    /// Opens a connection in the background, which is counted already.
    fn spawn_connect(&self) {
        let pending = PendingConnection { pool: Arc::downgrade(&self.0) };
        let target = self.0.target.clone();
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let connected = connect(&target).await;
            pending.finish(connected);
        });
    }

    /// Opens connections in the background while requests wait.
    fn spawn_growth(&self) {
        let mut task = FlaggedTask { pool: Arc::downgrade(&self.0), flag: |state| &mut state.is_growing };
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            while let Some(pool) = task.pool.upgrade().map(Self) {
                let Some(next) = pool.grow() else {
                    task.finish();
                    return;
                };
                drop(pool);
                sleep_until(next).await;
            }
        });
    }

    /// Opens connections if a request has waited long enough. Returns the time of the next decision, or `None` if no
    /// request waits, or no further connection is allowed.
    fn grow(&self) -> Option<Instant> {
        let mut state = self.state();
        state.waiting.retain(|request| !request.sender.is_closed());
        let free = self.0.max_connections.saturating_sub(state.open + state.connecting);
        let Some(since) = state.waiting.front().map(|request| request.since).filter(|_| free > 0) else {
            state.is_growing = false;
            return None;
        };
        let (now, wait) = (Instant::now(), state.wait());
        let due = state.pause_until.map_or(since + wait, |until| until.max(since + wait));
        let established = state.established_at.filter(|_| state.exchanges.is_busy);
        let due = established.map_or(due, |established| due.max(established + MAX_PAUSE));
        if due > now {
            return Some(due);
        }
        let wanted = state.waiting.len().min(state.connecting_limit()).saturating_sub(state.connecting);
        let number = wanted.min(free);
        state.connecting += number;
        drop(state);
        (0..number).for_each(|_| self.spawn_connect());
        Some(now + wait)
    }

    /// Adds a connection that was opened, or returns its error to the waiting requests if no connection is left.
    fn add(&self, connected: Result<(HttpConnection, HandshakeTime), ConnectError>) {
        let mut state = self.state();
        state.connecting -= 1;
        match connected {
            Ok((connection, handshake)) => {
                state.open += 1;
                state.record(handshake, self.0.target.limit(), Instant::now());
                drop(state);
                self.give_back(connection);
            }
            Err(error) if state.open + state.connecting == 0 => {
                let waiting = mem::take(&mut state.waiting);
                drop(state);
                for request in waiting {
                    // A request that no longer waits needs no error.
                    let _ = request.sender.send(Err(error.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the requests wait for the other connections");
                state.pause_until = Some(Instant::now() + FAILURE_PAUSE);
                self.open_more(state);
            }
        }
    }

    /// Gives a connection to the request that has waited longest, or keeps it.
    fn give_back(&self, connection: HttpConnection) {
        let mut lease = ConnectionLease { pool: self.clone(), connection: Some(connection) };
        loop {
            let mut state = self.state();
            let Some(request) = state.waiting.pop_front() else {
                if let Some(connection) = lease.connection.take() {
                    state.idle.push((connection.keep(), Instant::now()));
                }
                self.sweep(state);
                return;
            };
            drop(state);
            match request.sender.send(Ok(lease)) {
                Err(Ok(unused)) => lease = unused,
                _ => return,
            }
        }
    }

    /// Counts a connection that was closed, and replaces it if requests wait.
    fn forget(&self) {
        let mut state = self.state();
        state.open -= 1;
        state.waiting.retain(|request| !request.sender.is_closed());
        self.open_more(state);
    }

    /// Starts the task that closes old connections, unless it runs.
    fn sweep(&self, mut state: MutexGuard<'_, PoolState>) {
        if mem::replace(&mut state.is_swept, true) {
            return;
        }
        drop(state);
        let mut task = FlaggedTask { pool: Arc::downgrade(&self.0), flag: |state| &mut state.is_swept };
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            while let Some(pool) = task.pool.upgrade() {
                if !close_old(&pool) {
                    task.finish();
                    return;
                }
                drop(pool);
                sleep(IDLE_TIMEOUT / 4).await;
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.0.state()
    }
}

impl SharedPool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the connections that were not used for [`IDLE_TIMEOUT`]; returns whether any other is idle.
fn close_old(pool: &SharedPool) -> bool {
    let mut state = pool.state();
    let before = state.idle.len();
    state.idle.retain(|(_, since)| since.elapsed() < IDLE_TIMEOUT);
    state.open -= before - state.idle.len();
    state.is_swept = !state.idle.is_empty();
    state.is_swept
}

/// Opens a connection, with retries after errors other than a timeout.
async fn connect(target: &ConnectTarget) -> Result<(HttpConnection, HandshakeTime), ConnectError> {
    for pause in RECONNECT_PAUSES {
        match connect_once(target).await {
            Err(error) if !error.is_timeout => {
                tracing::debug!(%error, "the connection is attempted again");
                sleep(pause).await;
            }
            connected => return connected,
        }
    }
    connect_once(target).await
}

async fn connect_once(target: &ConnectTarget) -> Result<(HttpConnection, HandshakeTime), ConnectError> {
    let (started, mut busy) = (Instant::now(), Duration::ZERO);
    let mut connecting = pin!(target.connect());
    let connected = poll_fn(|context| {
        let resumed = Instant::now();
        let polled = connecting.as_mut().poll(context);
        busy += resumed.elapsed();
        polled
    })
    .await;
    let total = started.elapsed();
    connected.map(|connection| (connection, HandshakeTime { total, busy }))
}

/// A connection that is being opened. If its task ends without a result, that is an error of the connection.
struct PendingConnection {
    pool: Weak<SharedPool>,
}

impl PendingConnection {
    fn finish(mut self, connected: Result<(HttpConnection, HandshakeTime), ConnectError>) {
        if let Some(pool) = mem::take(&mut self.pool).upgrade() {
            ConnectionPool(pool).add(connected);
        }
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        if let Some(pool) = mem::take(&mut self.pool).upgrade() {
            let error = pool.target.error("the task that connects has ended".to_owned(), false);
            ConnectionPool(pool).add(Err(error));
        }
    }
}

/// A background task with a flag in the pool's state that is set while the task runs.
struct FlaggedTask {
    pool: Weak<SharedPool>,
    flag: fn(&mut PoolState) -> &mut bool,
}

impl FlaggedTask {
    /// Ends a task that has reset its flag itself, in the same critical section as its last decision.
    fn finish(&mut self) {
        self.pool = Weak::new();
    }
}

impl Drop for FlaggedTask {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            *(self.flag)(&mut pool.state()) = false;
        }
    }
}

impl ConnectionLease {
    /// Sends the request and receives the response, which must be complete at the time `until`. Afterwards the connection
    /// serves another request, if it can.
    pub(crate) async fn send(
        mut self,
        request: Vec<u8>,
        until: Option<Instant>,
    ) -> Result<ReceivedResponse, ExchangeError> {
        // Only a complete response puts the connection back: until then, the guard closes it.
        let Some(mut connection) = self.connection.take() else { unreachable!("a lease sends one request") };
        let mut guard = ClosingGuard { pool: &self.pool, is_closed: true };
        let started = Instant::now();
        let received = connection.send(request, until).await;
        if connection.is_open() {
            {
                let mut state = self.pool.state();
                let open = state.open;
                state.exchanges.record(started.elapsed(), open);
            }
            guard.is_closed = false;
            self.pool.give_back(connection);
        }
        received
    }
}

/// Counts a connection as closed when the request ends, in whatever way.
struct ClosingGuard<'p> {
    pool: &'p ConnectionPool,
    is_closed: bool,
}

impl Drop for ClosingGuard<'_> {
    fn drop(&mut self) {
        if self.is_closed {
            self.pool.forget();
        }
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        // The lease was not used: its request no longer waits.
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use rustls::RootCertStore;
    use tokio::time::timeout;

    use super::*;
    use crate::tests::tls_server::TlsServer;
    use crate::tls::config_with;

    async fn request(pool: ConnectionPool) -> Bytes {
        let request = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}".to_vec();
        pool.lease().await.unwrap().send(request, None).await.unwrap().body
    }

    async fn request_all(pool: &ConnectionPool, number: usize) {
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..number {
            requests.spawn(request(pool.clone()));
        }
        for body in requests.join_all().await {
            assert_eq!(body, "{}");
        }
    }

    #[tokio::test]
    async fn sessions_are_resumed_by_further_connections() {
        let server = TlsServer::default();
        let pool = ConnectionPool::new(server.start().await, 6);
        request(pool.clone()).await;
        assert_eq!((server.full.load(Ordering::Relaxed), server.resumed.load(Ordering::Relaxed)), (1, 0));
        while server.full.load(Ordering::Relaxed) + server.resumed.load(Ordering::Relaxed) < 6 {
            request_all(&pool, 30).await;
        }
        request_all(&pool, 30).await;
        assert_eq!((server.full.load(Ordering::Relaxed), server.resumed.load(Ordering::Relaxed)), (1, 5));
    }

    #[tokio::test]
    async fn busy_server_is_reached_with_few_handshakes() {
        // It responds to one request at a time, so more connections do not make it faster.
        // Its delay is long compared with those of a busy machine.
        let delay = Duration::from_millis(10);
        let server = TlsServer { is_serial: true, response_delay: delay, ..TlsServer::default() };
        let pool = ConnectionPool::new(server.start().await, 128);
        request(pool.clone()).await;
        let started = Instant::now();
        for _ in 0..2 {
            request_all(&pool, 100).await;
        }
        let handshakes = server.accepted.load(Ordering::Relaxed);
        let paced = usize::try_from(started.elapsed().as_millis() / MAX_PAUSE.as_millis()).unwrap();
        // Each burst begins with exchanges that do not yet show it. Without pauses, all 128 connections are opened.
        assert!(handshakes <= paced + 64, "{handshakes} handshakes, of which {paced} with pauses");
        assert_eq!(server.full.load(Ordering::Relaxed), 1, "all others resume the session of the first");
    }

    #[tokio::test]
    async fn connections_that_end_during_growth_are_replaced_and_no_request_fails() {
        let server = TlsServer::default();
        let pool = ConnectionPool::new(server.start().await, 8);
        request(pool.clone()).await;
        // The following connections are closed before their handshake, while the first one serves requests.
        server.refused.store(5, Ordering::Relaxed);
        while server.refused.load(Ordering::Relaxed) > 0 {
            request_all(&pool, 16).await;
        }
        while pool.state().open < 8 {
            request_all(&pool, 32).await;
        }
        let state = pool.state();
        assert_eq!((state.open, state.idle.len(), state.connecting, state.waiting.len()), (8, 8, 0, 0));
        assert_eq!(server.accepted.load(Ordering::Relaxed), 8 + 5);
    }

    #[test]
    fn server_is_busy_if_even_the_shortest_exchange_takes_much_longer_than_one_alone() {
        let mut times = ExchangeTimes::default();
        let mut record = |millis: &[u64], open| {
            for millis in millis {
                times.record(Duration::from_millis(*millis), open);
            }
            let is_busy = times.is_busy;
            times.is_first = true;
            is_busy
        };
        assert!(!record(&[2, 2, 5, 6, 6], 1));
        // The exchanges that began together are not compared, and throttled ones among others are not a busy server.
        assert!(!record(&[2, 9, 9, 9, 9, 9, 9, 9, 6, 9, 9, 9, 9, 9, 9, 9], 8));
        assert!(record(&[2, 9, 9, 9, 9, 9, 9, 9, 7, 9, 9, 9, 9, 9, 9, 9], 8));
        // A window that is not complete changes nothing.
        assert!(record(&[2, 9, 9, 9, 9, 9, 9, 9, 2, 9], 8));
        // The server has become slower: the exchange alone shows it.
        assert!(!record(&[7; 16], 8));
    }

    #[tokio::test]
    async fn unused_connections_are_closed() {
        let server = TlsServer::default();
        let pool = ConnectionPool::new(server.start().await, 4);
        while server.open.load(Ordering::Relaxed) < 4 {
            request_all(&pool, 20).await;
        }
        assert_eq!(pool.state().open, 4);
        tokio::time::pause();
        tokio::time::advance(IDLE_TIMEOUT / 2).await;
        request(pool.clone()).await;
        tokio::time::advance(IDLE_TIMEOUT * 2 / 3).await;
        while server.open.load(Ordering::Relaxed) > 1 {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(pool.state().open, 1, "the one that was used");
        tokio::time::advance(IDLE_TIMEOUT * 2).await;
        while server.open.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(pool.state().open, 0);
        assert_eq!(request(pool.clone()).await, "{}");
    }

    #[tokio::test]
    async fn certificate_of_an_unknown_authority_is_rejected() {
        let target = TlsServer::default().start().await;
        let tls = Some(config_with(RootCertStore::empty()).unwrap());
        let pool = ConnectionPool::new(ConnectTarget { tls, ..target }, 1);
        let error = pool.lease().await.err().unwrap().to_string();
        assert!(error.contains("localhost") && error.contains("certificate"), "{error}");
    }

    #[tokio::test]
    async fn requests_that_no_longer_wait_lose_no_connection() {
        let server = TlsServer::default();
        let pool = ConnectionPool::new(server.start().await, 2);
        for _ in 0..20 {
            let mut requests = tokio::task::JoinSet::new();
            (0..8).for_each(|_| drop(requests.spawn(request(pool.clone()))));
            sleep(Duration::from_millis(7)).await;
            requests.shutdown().await;
        }
        request_all(&pool, 8).await;
        let state = pool.state();
        assert_eq!((state.idle.len(), state.waiting.len()), (state.open, 0));
        assert!(state.open <= 2, "{}", state.open);
    }

    #[tokio::test]
    async fn connection_that_fails_is_attempted_again_before_a_request_fails() {
        let server = TlsServer { refused: Arc::new(AtomicUsize::new(2)), ..TlsServer::default() };
        let pool = ConnectionPool::new(server.start().await, 2);
        request_all(&pool, 32).await;
        assert!(server.accepted.load(Ordering::Relaxed) <= 2 + 2);
        let server = TlsServer { refused: Arc::new(AtomicUsize::new(usize::MAX)), ..TlsServer::default() };
        let pool = ConnectionPool::new(server.start().await, 2);
        let (first, second) = tokio::join!(pool.lease(), pool.lease());
        for leased in [first, second] {
            assert!(!leased.err().expect("an error").is_timeout);
        }
        assert_eq!(server.accepted.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn connection_that_was_idle_for_too_long_is_not_used() {
        let server = TlsServer::default();
        let pool = ConnectionPool::new(server.start().await, 2);
        request(pool.clone()).await;
        // The task that closes old connections starts its pause.
        sleep(Duration::from_millis(5)).await;
        // As after an execution environment was frozen, whose tasks have not run.
        for (_, since) in &mut pool.state().idle {
            *since = since.checked_sub(IDLE_TIMEOUT).unwrap();
        }
        request(pool.clone()).await;
        assert_eq!(server.accepted.load(Ordering::Relaxed), 2);
        assert_eq!(pool.state().open, 1);
    }

    #[test]
    fn connection_attempt_that_ends_with_its_runtime_is_an_error() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // The kernel accepts the connection, but no server responds to the TLS handshake.
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = Some(config_with(RootCertStore::empty()).unwrap());
        let limit = Some(Duration::from_mins(5));
        let target = ConnectTarget { host: "127.0.0.1".to_owned(), port, tls, connect_timeout: limit };
        let pool = ConnectionPool::new(target, 4);
        let (first, second) = (runtime(), runtime());
        assert!(first.block_on(async { timeout(Duration::from_millis(20), pool.lease()).await }).is_err());
        assert_eq!(pool.state().connecting, 1);
        second.block_on(async {
            let mut waiting = pin!(pool.lease());
            assert!(timeout(Duration::from_millis(20), waiting.as_mut()).await.is_err());
            first.shutdown_background();
            let error = waiting.await.err().expect("an error");
            assert!(error.to_string().contains("has ended"), "{error}");
        });
        let state = pool.state();
        assert_eq!((state.open, state.connecting, state.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn handshakes_with_a_server_nearby_are_sequential_and_with_a_distant_one_as_many_as_are_open() {
        let sample = |total, busy| {
            let sample = HandshakeTime { total: Duration::from_millis(total), busy: Duration::from_micros(busy) };
            let mut state = PoolState { open: 32, ..PoolState::default() };
            let now = Instant::now();
            state.record(sample, Duration::from_secs(1), now);
            let pause = state.pause_until.map(|until| (until - now).as_millis());
            (state.connecting_limit(), state.wait().as_millis(), pause)
        };
        assert_eq!(sample(1, 900), (1, 2, Some(2)));
        assert_eq!(sample(15, 900), (1, 15, Some(2)));
        assert_eq!(sample(150, 900), (32, 20, Some(2)));
        // With a small share of a vCPU, the CPU time of a handshake is long and limits the parallel handshakes.
        assert_eq!(sample(200, 25_000), (2, 20, Some(50)));
        assert_eq!(sample(150, 0), (32, 20, Some(0)));
        assert_eq!(PoolState::default().connecting_limit(), 1);
    }

    #[test]
    fn handshake_of_a_frozen_environment_is_not_recorded() {
        let mut state = PoolState { open: 8, ..PoolState::default() };
        let (limit, now) = (Duration::from_secs(1), Instant::now());
        let sample = |total| HandshakeTime { total, busy: total };
        state.record(sample(Duration::from_mins(1)), limit, now);
        assert_eq!((state.handshake, state.pause_until), (None, None));
        state.record(sample(Duration::from_millis(5)), limit, now);
        state.record(sample(Duration::from_mins(1)), limit, now + Duration::from_mins(1));
        assert_eq!(state.handshake, Some(sample(Duration::from_millis(5))));
        assert_eq!(state.pause_until, Some(now + Duration::from_millis(15)));
        // Even a long one within the limit does not delay the others for long.
        state.record(sample(Duration::from_millis(900)), limit, now);
        assert_eq!(state.pause_until, Some(now + MAX_PAUSE));
        assert_eq!(state.wait(), Duration::from_millis(5));
    }
}
