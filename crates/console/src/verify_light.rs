//! The verify light: whether every replica is equal to the source, determined continuously while a page shows it.
//! [`compare`]
//!
//! Each round compares the first [`ITEMS`] items of the source and of each replica, in both directions. A difference
//! counts only if the next round finds it too: a change that is on its way is not one. The task `verify` compares whole
//! tables.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};
use millrace_maintenance::MaintenanceHandler;
use millrace_shared::change::CanonicalKey;
use millrace_shared::table_reader::ScanSegment;
use millrace_sinks::Replica;

use crate::frame;

/// The maximum number of items of each table in a round.
const ITEMS: usize = 1_000;
/// The maximum number of differences that are retained, and of those that are shown.
const DIFFERENCES: usize = 100;
const SHOWN: usize = 5;
/// The time between two rounds.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// A difference between a replica and the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DifferenceKind {
    Missing,
    Different,
    Extra,
}

impl DifferenceKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "is missing in",
            Self::Different => "differs in",
            Self::Extra => "should not be in",
        }
    }
}

/// The differences of one round, by replica and key.
pub(crate) type RoundDifferences = BTreeMap<(String, CanonicalKey), DifferenceKind>;

/// The result of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VerifyRound {
    pub(crate) compared: usize,
    pub(crate) is_cut: bool,
    pub(crate) differences: RoundDifferences,
}

/// The state of the light.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LightState {
    /// Every replica is equal to the source.
    Equal { compared: usize, is_cut: bool },
    /// Differences that the round before did not find.
    CatchingUp { count: usize },
    /// Differences that two rounds found.
    Different { differences: RoundDifferences },
    /// A store cannot be read.
    Unreadable { reason: String },
}

impl LightState {
    /// Decides, from two rounds in succession.
    pub(crate) fn decide(before: Option<&VerifyRound>, now: Result<&VerifyRound, &String>) -> Self {
        let round = match now {
            Ok(round) => round,
            Err(reason) => return Self::Unreadable { reason: reason.clone() },
        };
        if round.differences.is_empty() {
            return Self::Equal { compared: round.compared, is_cut: round.is_cut };
        }
        let known = |key: &(String, CanonicalKey)| before.is_some_and(|before| before.differences.contains_key(key));
        let persisting: RoundDifferences =
            round.differences.iter().filter(|(key, _)| known(key)).map(|(key, kind)| (key.clone(), *kind)).collect();
        if persisting.is_empty() {
            Self::CatchingUp { count: round.differences.len() }
        } else {
            Self::Different { differences: persisting }
        }
    }

    /// Renders the light.
    pub(crate) fn render(&self) -> Markup {
        html! {
            @match self {
                Self::Equal { compared, is_cut } => {
                    p.box.light.good { "Verify: green. Every replica is equal to the source (" (compared) " items"
                        @if *is_cut { ", the first of each table" } ")." }
                }
                Self::CatchingUp { count } => { p.box.light.warn { "Verify: yellow. " (frame::count(*count, "difference")) ", which may be changes on their way." } }
                Self::Different { differences } => {
                    div.box.light.bad {
                        "Verify: red. " (frame::count(differences.len(), "difference")) @if differences.len() == DIFFERENCES { " or more" } ":"
                        ul { @for ((replica, key), kind) in differences.iter().take(SHOWN) {
                            li { a href=(crate::key::href(key.as_str())) { (key) } " " (kind.as_str()) " " (replica) }
                        } }
                    }
                }
                Self::Unreadable { reason } => { p.box.light.warn { "Verify: unknown. " (reason) } }
            }
        }
    }
}

/// Compares the source with its replicas once.
///
/// # Errors
/// The error of the store that cannot be read.
pub(crate) async fn compare(maintenance: &MaintenanceHandler) -> Result<VerifyRound, String> {
    let description = maintenance.source.describe().await.map_err(|error| error.to_string())?;
    let names = description.key_names();
    let (mut items, mut after, mut is_cut) = (Vec::new(), None, false);
    loop {
        let limit = i32::try_from(ITEMS - items.len()).ok();
        let page = maintenance.source.scan(ScanSegment::WHOLE, after.as_ref(), &names, limit).await;
        let page = page.map_err(|error| error.to_string())?;
        items.extend(page.items);
        after = page.next;
        if after.is_none() || items.len() >= ITEMS {
            is_cut |= after.is_some();
            break;
        }
    }
    let keys: Vec<CanonicalKey> = items.iter().map(|(key, _)| key.clone()).collect();
    let mut round = VerifyRound { compared: items.len(), is_cut, differences: RoundDifferences::new() };
    for replica in &maintenance.replicas {
        let held = replica.read(&keys).await.map_err(|error| error.to_string())?.items;
        for ((key, item), stored) in items.iter().zip(held) {
            match stored.as_ref().and_then(|stored| stored.item()) {
                None => round.add(&**replica, key, DifferenceKind::Missing),
                Some(copy) if !item.eq_by_value(copy) => round.add(&**replica, key, DifferenceKind::Different),
                Some(_) => {}
            }
        }
        add_extra_items(maintenance, &**replica, &mut round).await?;
    }
    Ok(round)
}

/// Adds the items of a replica that the source does not have.
async fn add_extra_items(
    maintenance: &MaintenanceHandler,
    replica: &dyn Replica,
    round: &mut VerifyRound,
) -> Result<(), String> {
    let (mut seen, mut after) = (0, None);
    while seen < ITEMS {
        let page = replica.scan(ScanSegment::WHOLE, after.as_ref()).await.map_err(|error| error.to_string())?;
        seen += page.items.len();
        let live: Vec<CanonicalKey> =
            page.items.into_iter().filter(|(_, stored)| stored.item().is_some()).map(|(key, _)| key).collect();
        let found = maintenance.source.read(&live).await.map_err(|error| error.to_string())?.items;
        for (key, _) in live.iter().zip(found).filter(|(_, item)| item.is_none()) {
            round.add(replica, key, DifferenceKind::Extra);
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
    round.is_cut = true;
    Ok(())
}

impl VerifyRound {
    fn add(&mut self, replica: &dyn Replica, key: &CanonicalKey, kind: DifferenceKind) {
        if self.differences.len() < DIFFERENCES {
            self.differences.insert((replica.name().to_owned(), key.clone()), kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(keys: &[&str]) -> VerifyRound {
        let key = |name: &&str| CanonicalKey::parse(&format!(r#"{{"id":{{"S":"{name}"}}}}"#)).unwrap();
        let differences = keys.iter().map(|name| (("copy".to_owned(), key(name)), DifferenceKind::Missing)).collect();
        VerifyRound { compared: 3, is_cut: false, differences }
    }

    #[test]
    fn difference_counts_only_if_the_next_round_finds_it_too() {
        let (none, a, b) = (round(&[]), round(&["a"]), round(&["b"]));
        let word = |before: Option<&VerifyRound>, now: &VerifyRound| {
            let text = LightState::decide(before, Ok(now)).render().into_string();
            ["green", "yellow", "red"].into_iter().find(|word| text.contains(word)).unwrap()
        };
        assert_eq!(word(None, &none), "green");
        assert_eq!(word(None, &a), "yellow");
        assert_eq!(word(Some(&none), &a), "yellow");
        assert_eq!(word(Some(&a), &b), "yellow");
        assert_eq!(word(Some(&a), &a), "red");
        assert_eq!(word(Some(&a), &none), "green");
        let text = LightState::decide(Some(&a), Ok(&a)).render().into_string();
        assert!(text.contains("Verify: red. 1 difference:"), "{text}");
    }

    #[test]
    fn store_that_cannot_be_read_is_neither_green_nor_red() {
        let reason = "sink <b>: gone".to_owned();
        let text = LightState::decide(None, Err(&reason)).render().into_string();
        assert!(text.contains("unknown. sink &lt;b&gt;: gone"), "{text}");
    }
}
