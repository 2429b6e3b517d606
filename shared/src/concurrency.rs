//! Bounded concurrency with a deadline: [`for_each_until`].

use std::ops::ControlFlow;
use std::pin::pin;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

/// Runs `work` for each item, at most `limit` (at least 1) at a time, until `deadline`. Returns the indexes of the
/// items that did not finish, in ascending order.
///
/// Work starts in the order of the items. `report` receives the index and the output of each item that finishes, in the
/// order in which they finish; it can end the run early.
///
/// After the deadline, nothing is started and nothing is reported, even if outputs are always ready. Work that is in
/// progress at the end of the run is dropped, and its items are returned together with those that were not started: a
/// request that was sent may still take effect.
pub async fn for_each_until<T, W: Future>(
    deadline: Instant,
    limit: usize,
    items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    work: impl Fn(T) -> W,
    mut report: impl FnMut(usize, W::Output) -> ControlFlow<()>,
) -> Vec<usize> {
    let items = items.into_iter();
    let mut is_open = vec![true; items.len()];
    if is_open.is_empty() {
        return Vec::new();
    }
    let work = &work;
    let mut waiting = items.enumerate();
    // Not `buffer_unordered`: its closure would prevent callers with borrowed items from being `Send`.
    let mut in_progress = FuturesUnordered::new();
    let mut end = pin!(sleep_until(deadline));
    loop {
        let free = limit.max(1) - in_progress.len();
        for (index, item) in waiting.by_ref().take(free) {
            in_progress.push(async move {
                // Several items start in one poll, and the first of them may take until the deadline. The end of the
                // run drops the rest.
                if Instant::now() >= deadline {
                    std::future::pending::<()>().await;
                }
                (index, work(item).await)
            });
        }
        let next = tokio::select! {
            // The deadline is polled first: otherwise, outputs that are always ready would prevent it from being
            // polled.
            biased;
            () = &mut end => None,
            next = in_progress.next() => next,
        };
        let Some((index, output)) = next else { break };
        is_open[index] = false;
        if report(index, output).is_break() {
            break;
        }
    }
    is_open.iter().enumerate().filter(|(_, is_open)| **is_open).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    use tokio::time::{advance, sleep};

    use super::*;

    fn in_seconds(seconds: f32) -> Instant {
        Instant::now() + Duration::from_secs_f32(seconds)
    }

    /// Runs items that take this number of seconds each; returns what was reported, in order, and what did not finish.
    async fn run(deadline: Instant, limit: usize, seconds: &[u64]) -> (Vec<usize>, Vec<usize>) {
        let mut reported = Vec::new();
        let work = |seconds: &u64| sleep(Duration::from_secs(*seconds));
        let unfinished = for_each_until(deadline, limit, seconds, work, |index, ()| {
            reported.push(index);
            ControlFlow::Continue(())
        });
        let unfinished = unfinished.await;
        (reported, unfinished)
    }

    #[tokio::test(start_paused = true)]
    async fn finished_items_are_reported_in_their_order_and_the_rest_is_returned() {
        assert_eq!(run(in_seconds(9.5), 8, &[3, 1, 2]).await, (vec![1, 2, 0], vec![]));
        assert_eq!(run(in_seconds(2.5), 8, &[3, 1, 4, 2]).await, (vec![1, 3], vec![0, 2]));
        assert_eq!(run(in_seconds(2.5), 8, &[]).await, (vec![], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_run_ends_at_its_deadline_or_with_its_last_item() {
        let begin = Instant::now();
        run(begin + Duration::from_secs(5), 2, &[1, 1, 1]).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(2));
        run(begin + Duration::from_secs(5), 2, &[60]).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_items_than_the_limit_run_at_once_and_they_start_in_order() {
        for limit in [0, 1, 3] {
            let (running, most, started) = (Cell::new(0), Cell::new(0), RefCell::new(Vec::new()));
            let work = |item: usize| {
                let (running, most, started) = (&running, &most, &started);
                async move {
                    started.borrow_mut().push(item);
                    running.set(running.get() + 1);
                    most.set(most.get().max(running.get()));
                    sleep(Duration::from_secs(1)).await;
                    running.set(running.get() - 1);
                }
            };
            let unfinished = for_each_until(in_seconds(60.0), limit, 0..7, work, |_, ()| ControlFlow::Continue(()));
            assert_eq!(unfinished.await, [0; 0]);
            assert_eq!((most.get(), started.into_inner()), (limit.max(1), (0..7).collect()), "limit {limit}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_started_after_the_deadline() {
        let started = Cell::new(0);
        let work = |_| {
            started.set(started.get() + 1);
            std::future::ready(())
        };
        let report = |_, ()| ControlFlow::Continue(());
        assert_eq!(for_each_until(Instant::now(), 2, 0..3, work, report).await, [0, 1, 2]);
        assert_eq!(started.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn outputs_that_are_always_ready_do_not_hide_the_deadline() {
        let started = Cell::new(0);
        let work = |_| {
            started.set(started.get() + 1);
            advance(Duration::from_secs(1))
        };
        let mut reported = 0;
        let unfinished = for_each_until(in_seconds(2.5), 1, 0..1_000, work, |_, ()| {
            reported += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(unfinished.await.len(), 1_000 - reported);
        assert!((2..=3).contains(&reported) && started.get() == 3, "{reported} of {} reported", started.get());
    }

    /// The clock of this test is not paused, because only a real one moves while a thread is blocked.
    #[tokio::test]
    async fn work_that_blocks_until_the_deadline_is_the_last_to_start() {
        let started = RefCell::new(Vec::new());
        let work = |item: usize| {
            let started = &started;
            async move {
                started.borrow_mut().push(item);
                std::thread::sleep(Duration::from_millis(350));
                std::future::pending::<()>().await;
            }
        };
        let report = |_, ()| ControlFlow::Continue(());
        assert_eq!(for_each_until(in_seconds(0.3), 4, 0..4, work, report).await, [0, 1, 2, 3]);
        assert_eq!(started.into_inner(), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_can_end_the_run() {
        let mut reported = Vec::new();
        let work = |seconds: u64| sleep(Duration::from_secs(seconds));
        let unfinished = for_each_until(in_seconds(60.0), 8, [4, 1, 2, 3], work, |index, ()| {
            reported.push(index);
            if index == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((unfinished.await, reported), (vec![0, 3], vec![1, 2]));
    }
}
