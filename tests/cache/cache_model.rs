//! A model of version-fenced cache invalidation, and random runs against one record: slow readers, deletes and
//! creations, clocks that are behind, writers that do not count versions, records that expire, batches, and
//! invalidations that fail.
//!
//! The invariant: the cache never returns a state of the record that is older than a change whose invalidation marker
//! has been set. The rule is also no stricter than necessary: each way to weaken it makes a run violate the invariant.

use millrace_shared::version_fence::MinVersion;

/// A deviation from the rule that must violate the invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelMutation {
    None,
    /// The minimum version after a delete is the deleted version.
    RemovalCountsNothing,
    /// The minimum version after a write is the written version, even if that is not higher than the previous one.
    WriteIsBelieved,
    /// The minimum version after a write of a lower version is derived from the written version alone.
    LowerWriteIsBelieved,
    /// The minimum version of a batch is that of its last change, not the highest one.
    SettledFirst,
    /// After a failure the batch is redelivered from its last change on, not from the one with the highest minimum
    /// version.
    ResentFromSettled,
    /// A fill replaces any entry.
    FillOverAnything,
    /// A fill replaces any invalidation marker.
    FillOverMarker,
    /// An invalidation marker expires before the readers that it protects against have ended.
    ShortMarker,
    /// An invalidation marker that is not higher than the existing one does not extend its lifetime.
    MarkNotRenewed,
    /// An invalidation marker does not replace entries.
    MarkSparesEntries,
    /// A negative entry replaces an invalidation marker.
    MissingOverMarker,
    /// An entry that expires soon does not keep its version for the lifetime of an invalidation marker.
    EntryEndsAlone,
    /// A reader may fill the cache with a value that it read any length of time ago.
    LateFill,
}

pub(super) const WEAKNESSES: [ModelMutation; 13] = [
    ModelMutation::RemovalCountsNothing,
    ModelMutation::WriteIsBelieved,
    ModelMutation::LowerWriteIsBelieved,
    ModelMutation::SettledFirst,
    ModelMutation::ResentFromSettled,
    ModelMutation::FillOverAnything,
    ModelMutation::FillOverMarker,
    ModelMutation::ShortMarker,
    ModelMutation::MarkNotRenewed,
    ModelMutation::MarkSparesEntries,
    ModelMutation::MissingOverMarker,
    ModelMutation::EntryEndsAlone,
    ModelMutation::LateFill,
];

const MARKER_TTL: u64 = 60;
const MAX_FILL_DELAY: u64 = 30;
const MAX_ENTRY_TTL: u64 = 900;
const MISSING: u64 = 5;

/// The cached value of the record: a version, and the index of the state that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CachedValue {
    Entry { version: u64, state: usize },
    Missing { state: usize },
    Marker { min_version: u64 },
}

/// A model of the cache with a clock in seconds.
#[derive(Debug)]
pub(super) struct CacheModel {
    weakness: ModelMutation,
    kept: Option<(CachedValue, u64)>,
    now: u64,
}

impl CacheModel {
    fn new(weakness: ModelMutation) -> Self {
        Self { weakness, kept: None, now: 0 }
    }

    fn live(&self) -> Option<CachedValue> {
        self.kept.filter(|(_, until)| *until > self.now).map(|(kept, _)| kept)
    }

    /// Returns the state that a read returns, if there is one, and its version (0: the record is missing).
    fn cached(&self) -> Option<(usize, u64)> {
        match self.live()? {
            CachedValue::Entry { version, state } => Some((state, version)),
            CachedValue::Missing { state } => Some((state, 0)),
            CachedValue::Marker { .. } => None,
        }
    }

    fn fill(&mut self, version: u64, state: usize, ends_in: Option<u64>) {
        let taken = match self.live() {
            None | Some(CachedValue::Missing { .. }) => true,
            Some(CachedValue::Entry { version: held, .. }) => {
                held < version || self.weakness == ModelMutation::FillOverAnything
            }
            Some(CachedValue::Marker { min_version }) => {
                min_version <= version || self.weakness == ModelMutation::FillOverMarker
            }
        };
        if taken {
            let least = if self.weakness == ModelMutation::EntryEndsAlone { 0 } else { MARKER_TTL };
            let life = ends_in.unwrap_or(MAX_ENTRY_TTL).min(MAX_ENTRY_TTL).max(least);
            self.kept = Some((CachedValue::Entry { version, state }, self.now + life));
        }
    }

    fn fill_missing(&mut self, state: usize) {
        let over_mark = self.weakness == ModelMutation::MissingOverMarker
            && matches!(self.live(), Some(CachedValue::Marker { .. }));
        if self.live().is_none() || over_mark {
            self.kept = Some((CachedValue::Missing { state }, self.now + MISSING));
        }
    }

    fn invalidate(&mut self, min_version: u64) {
        let until = self.now + if self.weakness == ModelMutation::ShortMarker { 15 } else { MARKER_TTL };
        match self.live() {
            Some(CachedValue::Entry { version, .. }) if version >= min_version => {}
            Some(CachedValue::Entry { .. }) if self.weakness == ModelMutation::MarkSparesEntries => {}
            Some(CachedValue::Marker { min_version: held }) if held >= min_version => {
                if self.weakness != ModelMutation::MarkNotRenewed {
                    self.kept = Some((CachedValue::Marker { min_version: held }, until));
                }
            }
            _ => self.kept = Some((CachedValue::Marker { min_version }, until)),
        }
    }

    fn min_version(&self, before: Option<u64>, after: Option<u64>) -> u64 {
        let old = before.unwrap_or(0);
        match after {
            None if self.weakness == ModelMutation::RemovalCountsNothing => old,
            None => MinVersion::after_delete(old).version(),
            Some(new) if self.weakness == ModelMutation::WriteIsBelieved => new.max(1),
            Some(new) if self.weakness == ModelMutation::LowerWriteIsBelieved && new < old => new + 1,
            Some(new) => MinVersion::after_write(old, new).version(),
        }
    }
}

/// An operation on the cache, to be repeated on a real one.
#[derive(Debug, Clone, Copy)]
pub(super) enum StepOutcome {
    /// A read, and the version that it returned: 0 for a missing record.
    Look(Option<u64>),
    Fill {
        version: u64,
        ends_in: Option<u64>,
    },
    FillMissing,
    Marker(MinVersion),
    Pass(u64),
}

/// A pseudorandom generator that is deterministic for a seed.
struct ModelRandom(u64);

impl ModelRandom {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % count
    }

    fn in_percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone, Copy)]
struct TableItem {
    version: u64,
    ends: Option<u64>,
}

/// A reader that missed in the cache.
#[derive(Debug, Clone, Copy)]
struct ModelReader {
    looked: u64,
    read: Option<(usize, Option<TableItem>)>,
}

/// A run against one record: its states, which the stream delivers in order, and its readers.
struct ModelRun {
    is_foreign: bool,
    chance: ModelRandom,
    model: CacheModel,
    done: Vec<StepOutcome>,
    /// The versions before and after each change; change n leads to state n + 1.
    changes: Vec<(Option<u64>, Option<u64>)>,
    item: Option<TableItem>,
    /// The highest version so far; a writer whose clock is correct uses a higher one.
    highest: u64,
    /// The index of the next change that the stream delivers, and of the first change whose invalidation may be
    /// missing.
    position: usize,
    marked: usize,
    readers: Vec<ModelReader>,
}

impl ModelRun {
    fn step(&mut self) -> Result<(), String> {
        // Every third record is written only by other programs, and more of its steps only advance the clock.
        let kind = if self.is_foreign { 3 + self.chance.below(13) } else { self.chance.below(16) };
        match kind {
            0..=1 => self.write(),
            2 => self.remove(),
            3..=4 => self.write_by_another_program(),
            5..=7 => self.deliver(),
            8..=10 => return self.look(),
            11..=12 => self.read(),
            13 => self.bring(),
            _ => {
                let seconds = [1, 4, 4, 29, 45, 61][usize::try_from(self.chance.below(6)).unwrap()];
                self.model.now += seconds;
                self.done.push(StepOutcome::Pass(seconds));
            }
        }
        Ok(())
    }

    fn change(&mut self, after: Option<TableItem>) {
        let before = self.item.map(|item| item.version);
        self.changes.push((before, after.map(|item| item.version)));
        self.item = after;
        self.highest = self.highest.max(after.map_or(0, |item| item.version));
    }

    fn ends(&mut self) -> Option<u64> {
        self.chance.in_percent(40).then(|| self.model.now + 1 + self.chance.below(4))
    }

    fn invalidate(&mut self, min_version: u64) {
        self.model.invalidate(min_version);
        // A minimum version of the model is also one of the real server.
        self.done.push(StepOutcome::Marker(MinVersion::after_write(0, min_version)));
    }

    /// A write by the API, which invalidates at once; the invalidation may be lost.
    fn write(&mut self) {
        let version = match self.item {
            Some(item) if item.version > 0 => item.version + 1,
            _ if self.chance.in_percent(40) => 1 + self.chance.below(self.highest + 2),
            _ => self.highest + 1 + self.chance.below(3),
        };
        let ends = self.ends();
        self.change(Some(TableItem { version, ends }));
        if self.chance.in_percent(70) {
            self.invalidate(version);
        }
    }

    fn remove(&mut self) {
        let Some(item) = self.item else { return };
        self.change(None);
        if self.chance.in_percent(60) {
            let min_version = self.model.min_version(Some(item.version), None);
            self.invalidate(min_version);
        }
    }

    fn write_by_another_program(&mut self) {
        let before = self.item.map_or(0, |item| item.version);
        let version = match self.chance.below(8) {
            0 => 0,
            1 => self.chance.below(before + 1),
            _ => before,
        };
        let ends = self.ends();
        self.change(Some(TableItem { version, ends }));
    }

    /// Delivers a batch of the stream, which may have been delivered before and may not reach the cache.
    fn deliver(&mut self) {
        if self.chance.in_percent(15) {
            self.position = usize::try_from(self.chance.below(self.position as u64 + 1)).unwrap();
        }
        let end = (self.position + 1 + usize::try_from(self.chance.below(3)).unwrap()).min(self.changes.len());
        if self.position >= end {
            return;
        }
        let min_versions =
            (self.position..end).map(|at| (self.model.min_version(self.changes[at].0, self.changes[at].1), at));
        let settled = end - 1;
        let (min_version, whose) =
            min_versions.clone().max_by_key(|(min_version, at)| (*min_version, usize::MAX - at)).unwrap();
        let min_version = if self.model.weakness == ModelMutation::SettledFirst {
            min_versions.clone().next_back().unwrap().0
        } else {
            min_version
        };
        if self.chance.in_percent(25) {
            self.position = if self.model.weakness == ModelMutation::ResentFromSettled { settled } else { whose };
            return;
        }
        self.invalidate(min_version.max(1));
        self.marked = self.marked.max(end);
        self.position = end;
    }

    fn look(&mut self) -> Result<(), String> {
        let cached = self.model.cached();
        self.done.push(StepOutcome::Look(cached.map(|(_, version)| version)));
        match cached {
            Some((state, version)) if state < self.marked => {
                Err(format!("state {state} (version {version}) was returned, and change {} is marked", self.marked - 1))
            }
            Some(_) => Ok(()),
            None => {
                if self.readers.len() < 4 {
                    self.readers.push(ModelReader { looked: self.model.now, read: None });
                }
                Ok(())
            }
        }
    }

    fn any_reader(&mut self) -> Option<usize> {
        let count = u64::try_from(self.readers.len()).unwrap();
        (count > 0).then(|| usize::try_from(self.chance.below(count)).unwrap())
    }

    fn read(&mut self) {
        let Some(at) = self.any_reader() else { return };
        let live = self.item.filter(|item| item.ends.is_none_or(|ends| ends > self.model.now));
        let read = (self.changes.len(), live);
        self.readers[at].read.get_or_insert(read);
    }

    fn bring(&mut self) {
        let Some(at) = self.any_reader() else { return };
        let ModelReader { looked, read: Some((state, item)) } = self.readers[at] else { return };
        self.readers.swap_remove(at);
        if self.model.now - looked > MAX_FILL_DELAY && self.model.weakness != ModelMutation::LateFill {
            return;
        }
        match item {
            None => {
                self.model.fill_missing(state);
                self.done.push(StepOutcome::FillMissing);
            }
            Some(TableItem { version: 0, .. }) => {}
            Some(TableItem { version, ends }) => {
                let ends_in = ends.map(|ends| ends.saturating_sub(self.model.now));
                self.model.fill(version, state, ends_in);
                self.done.push(StepOutcome::Fill { version, ends_in });
            }
        }
    }
}

/// Runs the model; returns the operations on its cache, and an error if it returned a stale state.
pub(super) fn live(seed: u64, weakness: ModelMutation) -> (Vec<StepOutcome>, Result<(), String>) {
    let mut life = ModelRun {
        is_foreign: seed.is_multiple_of(3),
        chance: ModelRandom(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
        model: CacheModel::new(weakness),
        done: Vec::new(),
        changes: Vec::new(),
        item: None,
        highest: 0,
        position: 0,
        marked: 0,
        readers: Vec::new(),
    };
    let lived = (0..80).try_for_each(|_| life.step());
    (life.done, lived)
}

#[test]
fn no_model_run_returns_a_stale_record() {
    for seed in 0..60_000 {
        let (done, lived) = live(seed, ModelMutation::None);
        assert_eq!(lived, Ok(()), "life {seed}: {done:#?}");
    }
}

#[test]
fn every_weakness_of_the_rule_is_found_out() {
    for weakness in WEAKNESSES {
        let found = (0..60_000).find(|seed| live(*seed, weakness).1.is_err());
        assert!(found.is_some(), "{weakness:?} harms nobody");
    }
}
