//! The layer between a function and its stores ([`FaultInjector`]): every call pauses here once, and faults are
//! injected here.
//!
//! A call pauses before its effect until the scenario advances its task, so writes to the source, deliveries and
//! repairs can occur between the reads and writes of other tasks. Faults are injected by a decorator: the functions and
//! the stores do not know about them. A task that is dropped while a call is paused has crashed; the effect of that
//! call may still occur, like a write that is in flight when an invocation times out.

use std::collections::VecDeque;
use std::future::pending;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::coverage::Coverage;

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultPoint {
    Sink(usize),
    Source,
    Failures,
    Archive,
    /// The reports in the failure bucket: calls to them meet the faults of that bucket, but no interruptions.
    Reports,
}

impl FaultPoint {
    pub(super) const ALL: [Self; 5] = [Self::Sink(0), Self::Sink(1), Self::Source, Self::Failures, Self::Archive];

    fn index(self) -> usize {
        match self {
            Self::Sink(index) => index,
            Self::Source => 2,
            Self::Failures | Self::Reports => 3,
            Self::Archive => 4,
        }
    }
}

/// A fault that is injected into a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InjectedFault {
    /// The store returns an error; the effect did not occur.
    Refused,
    /// The store throttles the call; the effect did not occur.
    Throttled,
    /// The connection fails before the store receives the call.
    CutBefore,
    /// The effect occurs, and the response is lost.
    ResponseLost,
    /// No response arrives, and the effect occurs later: after the retry, or after everything else.
    Zombie,
    /// No response ever arrives; the effect does not occur.
    Silence,
    /// The effect occurs, and no response ever arrives.
    SilenceAfter,
    /// The response to a batch read omits one of the keys. Only the source can do this; for other stores, the call is
    /// refused.
    LeftUnread,
}

impl InjectedFault {
    pub(super) const ALL: [Self; 8] = [
        Self::Refused,
        Self::ResponseLost,
        Self::Zombie,
        Self::Throttled,
        Self::CutBefore,
        Self::Silence,
        Self::SilenceAfter,
        Self::LeftUnread,
    ];

    /// A delayed read has no effect, so it fails like a call that the store did not receive.
    fn as_read_fault(self) -> Self {
        if self == Self::Zombie { Self::CutBefore } else { self }
    }
}

/// The state that all decorators of a scenario share.
#[derive(Clone, Default)]
pub(super) struct FaultInjector(Arc<Mutex<InjectorState>>);

#[derive(Default)]
struct InjectorState {
    round: u64,
    waiting: Vec<Waker>,
    /// Effects in progress.
    running: usize,
    /// Calls that never get a response.
    silent: usize,
    /// Set once something has happened since the round began.
    moved: bool,
    troubles: [VecDeque<InjectedFault>; 5],
    /// The number of calls before each pending interruption.
    interruptions: VecDeque<usize>,
    keep: bool,
    zombies: Vec<(FaultPoint, BoxFuture<'static, ()>)>,
    coverage: Coverage,
}

impl FaultInjector {
    fn lock(&self) -> MutexGuard<'_, InjectorState> {
        self.0.lock().unwrap()
    }

    pub(super) fn see(&self, what: &'static str) {
        self.lock().coverage.see(what);
    }

    pub(super) fn see_many(&self, what: &'static str, times: usize) {
        self.lock().coverage.see_many(what, times);
    }

    pub(super) fn coverage(&self) -> Coverage {
        mem::take(&mut self.lock().coverage)
    }

    /// Resets everything except the coverage.
    pub(super) fn reset(&self) {
        let mut state = self.lock();
        let coverage = mem::take(&mut state.coverage);
        *state = InjectorState { coverage, round: state.round, ..InjectorState::default() };
    }

    /// Injects a fault into the next call to this store.
    pub(super) fn trouble(&self, point: FaultPoint, trouble: InjectedFault) {
        self.lock().troubles[point.index()].push_back(trouble);
    }

    pub(super) fn end_of_troubles(&self) {
        self.lock().troubles.iter_mut().for_each(VecDeque::clear);
    }

    /// Fails a call with a transient error after each of these numbers of calls, whichever store it is to. A call that
    /// writes a report is neither counted nor failed, because the entries of a report that is not written are lost.
    pub(super) fn interrupt(&self, calls: impl IntoIterator<Item = usize>) {
        self.lock().interruptions = calls.into_iter().collect();
    }

    /// Starts a new round: every paused call continues.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        state.round += 1;
        state.moved = false;
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Returns whether any call has arrived or continued in this round, and whether an effect is in progress.
    pub(super) fn progress(&self) -> (bool, bool) {
        let state = self.lock();
        (state.moved, state.running > 0)
    }

    /// Sets whether the effects of calls that are dropped from now on still occur.
    pub(super) fn keep_what_is_dropped(&self, keep: bool) {
        self.lock().keep = keep;
    }

    /// Returns whether a call waits for a response that never arrives.
    pub(super) fn is_silent(&self) -> bool {
        self.lock().silent > 0
    }

    async fn silence<T>(&self) -> T {
        let _silent = FaultCounts::new(self, |state| &mut state.silent);
        pending().await
    }

    /// Removes and returns a delayed write, for which no caller waits any more.
    pub(super) fn take_zombie(&self, at: usize) -> Option<BoxFuture<'static, ()>> {
        let mut state = self.lock();
        let count = state.zombies.len();
        (count > 0).then(|| {
            state.coverage.see("zombie: landed");
            state.zombies.remove(at % count).1
        })
    }

    /// Discards the delayed writes to this store.
    pub(super) fn forget_zombies(&self, point: FaultPoint) {
        self.lock().zombies.retain(|(of, _)| *of != point);
    }

    /// Returns whether the next call to this store is to omit one of the requested keys; that fault is then consumed.
    pub(super) fn leaves_one_unread(&self, point: FaultPoint) -> bool {
        let mut state = self.lock();
        let troubles = &mut state.troubles[point.index()];
        let leaves = point == FaultPoint::Source && troubles.front() == Some(&InjectedFault::LeftUnread);
        if leaves {
            troubles.pop_front();
            state.coverage.see(name_of(InjectedFault::LeftUnread));
        }
        leaves
    }

    /// Passes a call to the store: pauses, and then runs `effect`, unless a fault prevents it.
    ///
    /// `writes` says whether the call changes the store: only the effect of such a call can occur late and still matter.
    pub(super) async fn pass<T, F>(&self, point: FaultPoint, writes: bool, effect: F) -> Result<T, InjectedFault>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let trouble = {
            let mut state = self.lock();
            let trouble = state.troubles[point.index()].pop_front().or_else(|| state.interruption(point));
            let trouble = trouble.map(|trouble| if writes { trouble } else { trouble.as_read_fault() });
            if let Some(trouble) = trouble {
                state.coverage.see(name_of(trouble));
            }
            trouble
        };
        let mut call = InterceptedCall { injector: self, point, writes, effect: Some(effect) };
        PausedCall { injector: self, since: None }.await;
        match trouble {
            None => Ok(call.run().await),
            Some(InjectedFault::ResponseLost) => {
                call.run().await;
                Err(InjectedFault::ResponseLost)
            }
            Some(InjectedFault::SilenceAfter) => {
                call.run().await;
                self.silence().await
            }
            Some(InjectedFault::Silence) => self.silence().await,
            Some(InjectedFault::Zombie) => {
                call.leave();
                Err(InjectedFault::Zombie)
            }
            Some(other) => {
                call.effect = None;
                Err(other)
            }
        }
    }
}

impl InjectorState {
    /// The transient error of an interruption that is due at this call.
    fn interruption(&mut self, point: FaultPoint) -> Option<InjectedFault> {
        let calls = self.interruptions.front_mut().filter(|_| point != FaultPoint::Reports)?;
        if *calls > 0 {
            *calls -= 1;
            return None;
        }
        self.interruptions.pop_front();
        self.coverage.see("task: interrupted");
        Some(InjectedFault::Refused)
    }
}

fn name_of(trouble: InjectedFault) -> &'static str {
    match trouble {
        InjectedFault::Refused => "trouble: refused",
        InjectedFault::Throttled => "trouble: throttled",
        InjectedFault::CutBefore => "trouble: cut before",
        InjectedFault::ResponseLost => "trouble: response lost",
        InjectedFault::Zombie => "trouble: zombie",
        InjectedFault::Silence => "trouble: silence",
        InjectedFault::SilenceAfter => "trouble: silence after landing",
        InjectedFault::LeftUnread => "trouble: left unread",
    }
}

/// Completes when a new round starts after the first poll.
struct PausedCall<'g> {
    injector: &'g FaultInjector,
    since: Option<u64>,
}

impl Future for PausedCall<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let injector = self.injector;
        let mut state = injector.lock();
        state.moved = true;
        if *self.since.get_or_insert(state.round) < state.round {
            return Poll::Ready(());
        }
        state.waiting.push(context.waker().clone());
        Poll::Pending
    }
}

/// A call whose effect has not started yet.
struct InterceptedCall<'g, T: Send + 'static, F: Future<Output = T> + Send + 'static> {
    injector: &'g FaultInjector,
    point: FaultPoint,
    writes: bool,
    effect: Option<F>,
}

impl<T: Send + 'static, F: Future<Output = T> + Send + 'static> InterceptedCall<'_, T, F> {
    async fn run(&mut self) -> T {
        let effect = self.effect.take().unwrap();
        let _running = FaultCounts::new(self.injector, |state| &mut state.running);
        effect.await
    }

    fn leave(&mut self) {
        if let Some(effect) = self.effect.take() {
            self.injector.lock().zombies.push((self.point, effect.map(drop).boxed()));
        }
    }
}

impl<T: Send + 'static, F: Future<Output = T> + Send + 'static> Drop for InterceptedCall<'_, T, F> {
    fn drop(&mut self) {
        if self.effect.is_none() || !self.writes {
            return;
        }
        let keep = {
            let mut state = self.injector.lock();
            if state.keep {
                state.coverage.see("zombie: left by a crash");
            }
            state.keep
        };
        if keep {
            self.leave();
        }
    }
}

/// A guard that increments a counter for as long as it lives.
struct FaultCounts<'g> {
    injector: &'g FaultInjector,
    count: fn(&mut InjectorState) -> &mut usize,
}

impl<'g> FaultCounts<'g> {
    fn new(injector: &'g FaultInjector, count: fn(&mut InjectorState) -> &mut usize) -> Self {
        let mut state = injector.lock();
        *count(&mut state) += 1;
        state.moved = true;
        drop(state);
        Self { injector, count }
    }
}

impl Drop for FaultCounts<'_> {
    fn drop(&mut self) {
        let mut state = self.injector.lock();
        let count = (self.count)(&mut state);
        *count = count.saturating_sub(1);
        state.moved = true;
    }
}
