//! The line between a function and its stores: [`FaultInjector`], at which every call waits once, and on which things go wrong.
//!
//! A call waits before its effect until the history lets its task go on; so writes to the source, deliveries and repairs
//! go in between the reads and writes of others. What befalls a call is a decorator's doing: the functions and the stores
//! know nothing of it. A task that is dropped while a call waits has crashed; the effect of that call may still come, as
//! a write that is on its way when an invocation times out may.

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
    /// The reports in the failure bucket: their calls meet the faults of that bucket, and no interruption.
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

/// What befalls a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InjectedFault {
    /// The store answers an error; nothing was done.
    Refused,
    /// The store has no capacity left; nothing was done.
    Throttled,
    /// The line is cut before the store has seen it.
    CutBefore,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// No answer comes, and it is done later: after the retry, or after everything.
    Zombie,
    /// No answer ever comes; nothing was done.
    Silence,
    /// It is done, and no answer ever comes.
    SilenceAfter,
    /// Of what was asked for, one part is not told. Only the source can do so; elsewhere it is refused.
    LeftUnread,
}

impl InjectedFault {
    pub(super) const ALL: [Self; 8] = [
        Self::Refused,
        Self::AnswerLost,
        Self::Zombie,
        Self::Throttled,
        Self::CutBefore,
        Self::Silence,
        Self::SilenceAfter,
        Self::LeftUnread,
    ];

    /// A read that comes late is none.
    fn of_a_read(self) -> Self {
        if self == Self::Zombie { Self::CutBefore } else { self }
    }
}

/// Shared by all decorators of a history.
#[derive(Clone, Default)]
pub(super) struct FaultInjector(Arc<Mutex<InjectorState>>);

#[derive(Default)]
struct InjectorState {
    round: u64,
    waiting: Vec<Waker>,
    /// Effects that are under way.
    running: usize,
    /// Calls that are never answered.
    silent: usize,
    /// Something has happened since the round began.
    moved: bool,
    troubles: [VecDeque<InjectedFault>; 5],
    /// Calls until a task is interrupted, for each interruption that is due.
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

    /// Forgets all but what it has seen.
    pub(super) fn reset(&self) {
        let mut state = self.lock();
        let coverage = mem::take(&mut state.coverage);
        *state = InjectorState { coverage, round: state.round, ..InjectorState::default() };
    }

    /// The next call to this store is in trouble.
    pub(super) fn trouble(&self, place: FaultPoint, trouble: InjectedFault) {
        self.lock().troubles[place.index()].push_back(trouble);
    }

    pub(super) fn end_of_troubles(&self) {
        self.lock().troubles.iter_mut().for_each(VecDeque::clear);
    }

    /// Fails a call with a transient error after each of these numbers of calls, whichever store it is to. A call that
    /// writes a report is neither counted nor failed, because the entries of a report that is not written are lost.
    pub(super) fn interrupt(&self, calls: impl IntoIterator<Item = usize>) {
        self.lock().interruptions = calls.into_iter().collect();
    }

    /// What waits may go on.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        state.round += 1;
        state.moved = false;
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether anything has come to the gate or passed it since it was opened, and whether anything is under way.
    pub(super) fn progress(&self) -> (bool, bool) {
        let state = self.lock();
        (state.moved, state.running > 0)
    }

    /// Whether the effects of calls that are dropped from now on come all the same.
    pub(super) fn keep_what_is_dropped(&self, keep: bool) {
        self.lock().keep = keep;
    }

    /// Whether a call waits for an answer that never comes.
    pub(super) fn is_silent(&self) -> bool {
        self.lock().silent > 0
    }

    async fn silence<T>(&self) -> T {
        let _silent = FaultCounts::new(self, |state| &mut state.silent);
        pending().await
    }

    /// The next write that nobody waits for any more.
    pub(super) fn take_zombie(&self, at: usize) -> Option<BoxFuture<'static, ()>> {
        let mut state = self.lock();
        let count = state.zombies.len();
        (count > 0).then(|| {
            state.coverage.see("zombie: landed");
            state.zombies.remove(at % count).1
        })
    }

    /// The writes on their way to this store will never come.
    pub(super) fn forget_zombies(&self, place: FaultPoint) {
        self.lock().zombies.retain(|(of, _)| *of != place);
    }

    /// Whether the next call to this store is told all but one of the parts that it asks for; it is then in no trouble
    /// besides.
    pub(super) fn leaves_one_unread(&self, place: FaultPoint) -> bool {
        let mut state = self.lock();
        let troubles = &mut state.troubles[place.index()];
        let leaves = place == FaultPoint::Source && troubles.front() == Some(&InjectedFault::LeftUnread);
        if leaves {
            troubles.pop_front();
            state.coverage.see(name_of(InjectedFault::LeftUnread));
        }
        leaves
    }

    /// A call: waits, then has `effect`, unless it is in trouble.
    ///
    /// Only what `writes` can come late and matter.
    pub(super) async fn pass<T, F>(&self, place: FaultPoint, writes: bool, effect: F) -> Result<T, InjectedFault>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let trouble = {
            let mut state = self.lock();
            let trouble = state.troubles[place.index()].pop_front().or_else(|| state.interruption(place));
            let trouble = trouble.map(|trouble| if writes { trouble } else { trouble.of_a_read() });
            if let Some(trouble) = trouble {
                state.coverage.see(name_of(trouble));
            }
            trouble
        };
        let mut call = InterceptedCall { gate: self, place, writes, effect: Some(effect) };
        PausedCall { gate: self, since: None }.await;
        match trouble {
            None => Ok(call.run().await),
            Some(InjectedFault::AnswerLost) => {
                call.run().await;
                Err(InjectedFault::AnswerLost)
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
    fn interruption(&mut self, place: FaultPoint) -> Option<InjectedFault> {
        let calls = self.interruptions.front_mut().filter(|_| place != FaultPoint::Reports)?;
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
        InjectedFault::AnswerLost => "trouble: answer lost",
        InjectedFault::Zombie => "trouble: zombie",
        InjectedFault::Silence => "trouble: silence",
        InjectedFault::SilenceAfter => "trouble: silence after landing",
        InjectedFault::LeftUnread => "trouble: left unread",
    }
}

/// Ready when the gate was opened after it began to wait.
struct PausedCall<'g> {
    gate: &'g FaultInjector,
    since: Option<u64>,
}

impl Future for PausedCall<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let gate = self.gate;
        let mut state = gate.lock();
        state.moved = true;
        if *self.since.get_or_insert(state.round) < state.round {
            return Poll::Ready(());
        }
        state.waiting.push(context.waker().clone());
        Poll::Pending
    }
}

/// A call whose effect has not come yet.
struct InterceptedCall<'g, T: Send + 'static, F: Future<Output = T> + Send + 'static> {
    gate: &'g FaultInjector,
    place: FaultPoint,
    writes: bool,
    effect: Option<F>,
}

impl<T: Send + 'static, F: Future<Output = T> + Send + 'static> InterceptedCall<'_, T, F> {
    async fn run(&mut self) -> T {
        let effect = self.effect.take().unwrap();
        let _running = FaultCounts::new(self.gate, |state| &mut state.running);
        effect.await
    }

    fn leave(&mut self) {
        if let Some(effect) = self.effect.take() {
            self.gate.lock().zombies.push((self.place, effect.map(drop).boxed()));
        }
    }
}

impl<T: Send + 'static, F: Future<Output = T> + Send + 'static> Drop for InterceptedCall<'_, T, F> {
    fn drop(&mut self) {
        if self.effect.is_none() || !self.writes {
            return;
        }
        let keep = {
            let mut state = self.gate.lock();
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

/// One more of something, for as long as it lives.
struct FaultCounts<'g> {
    gate: &'g FaultInjector,
    count: fn(&mut InjectorState) -> &mut usize,
}

impl<'g> FaultCounts<'g> {
    fn new(gate: &'g FaultInjector, count: fn(&mut InjectorState) -> &mut usize) -> Self {
        let mut state = gate.lock();
        *count(&mut state) += 1;
        state.moved = true;
        drop(state);
        Self { gate, count }
    }
}

impl Drop for FaultCounts<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        let count = (self.count)(&mut state);
        *count = count.saturating_sub(1);
        state.moved = true;
    }
}
