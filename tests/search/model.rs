//! A model of search that computes the expected results record by record in memory, without SQL.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;

use super::scene::{NOW, ScenePerson};

/// People who share the values that queries ask for, so that queries find some of them and sort orders have ties.
pub(crate) fn person() -> impl Strategy<Value = ScenePerson> {
    let names = [
        "Ada Byron",
        "Ada Lovelace",
        "ada 100%",
        "Alan_Turing",
        "Grace Hopper",
        "Äda Å",
        "İpek",
        "O'Brien \\ Co",
        "Γιάννης",
        "ΓΙΑ\u{301}ΝΝΗΣ ΣΑΣ",
        "Zoe\u{308} Strauß",
        "ZOË STRAUSS",
    ];
    let email = prop_oneof![
        Just(None),
        (0..9_u8, prop_oneof![Just("example.com"), Just("Example.COM"), Just("x.org")])
            .prop_map(|(n, domain)| Some(format!("p{n}@{domain}")))
    ];
    let status = prop_oneof![Just(None), Just(Some("active".to_owned())), Just(Some("it's \"odd\"%_".to_owned()))];
    let plan = prop_oneof![
        Just(None),
        Just(Some(json!({"S": "pro"}))),
        Just(Some(json!({"N": "12"}))),
        Just(Some(json!({"N": "12.0"}))),
        Just(Some(json!({"S": "12"}))),
        Just(Some(json!({"BOOL": true}))),
        Just(Some(json!({"NULL": true}))),
        Just(Some(json!({"L": [{"S": "pro"}, {"N": "7"}]}))),
        Just(Some(json!({"M": {"a.b": {"S": "deep"}}}))),
    ];
    let second = || prop_oneof![Just(None), (0..6_i64).prop_map(|n| Some(NOW.unix_timestamp() - 100 + n))];
    let expiry = prop_oneof![3 => Just(None), 1 => (-2..3_i64).prop_map(|n| Some(NOW.unix_timestamp() + n))];
    ((0..names.len()), 7..12_i64, email, status, plan, expiry, second(), second()).prop_map(
        move |(name, timestamp, email, status, plan, expires_at, created_at, updated_at)| ScenePerson {
            id: String::new(),
            timestamp,
            name: names[name].to_owned(),
            email,
            status,
            attributes: plan.map(|plan| json!({"M": {"plan": plan}})),
            expires_at,
            created_at,
            updated_at,
        },
    )
}

/// A condition: the query parameter and its value.
#[derive(Clone, Debug)]
pub(crate) enum ModelQuery {
    Status(String),
    Prefix(String),
    Like(String),
    Domain(String),
    From(i64),
    To(i64),
    CreatedFrom(i64),
    UpdatedTo(i64),
    ExpiresFrom(i64),
    Attribute(&'static str, &'static str, Value),
}

pub(crate) fn asked() -> impl Strategy<Value = ModelQuery> {
    let second = || (0..6_i64).prop_map(|n| NOW.unix_timestamp() - 100 + n);
    let texts = |texts: &'static [&'static str]| proptest::sample::select(texts).prop_map(str::to_owned);
    prop_oneof![
        texts(&["active", "it's \"odd\"%_", "ACTIVE"]).prop_map(ModelQuery::Status),
        texts(&[
            "a",
            "ADA",
            "ada 100%",
            "alan_",
            "%",
            "äda",
            "o'brien \\",
            "ΓΙΆΝΝΗΣ",
            "γιαννης",
            "Zoë",
            "zoe\u{308} strauß",
            "zoe"
        ])
        .prop_map(ModelQuery::Prefix),
        texts(&[
            "ada byrom",
            "lovelcae",
            "Turing, A.",
            "obrien",
            "grcae hoper",
            "ad",
            "a",
            "lada",
            "da",
            "_",
            "zzz",
            "İPEK Q",
            "γιάννησ",
            "ΖΟΕ\u{308}",
            "Zoe\u{308} Straus",
            "strauss",
            "strauß"
        ])
        .prop_map(ModelQuery::Like),
        texts(&["example.com", "X.ORG", "org"]).prop_map(ModelQuery::Domain),
        (7..12_i64).prop_map(ModelQuery::From),
        (7..12_i64).prop_map(ModelQuery::To),
        second().prop_map(ModelQuery::CreatedFrom),
        second().prop_map(ModelQuery::UpdatedTo),
        (0..3_i64).prop_map(|n| ModelQuery::ExpiresFrom(NOW.unix_timestamp() + n)),
        proptest::sample::select(vec![
            ("plan", "pro", json!({"S": "pro"})),
            ("plan", "12", json!({"N": "12"})),
            ("plan", "\"12\"", json!({"S": "12"})),
            ("plan", "1.2e1", json!({"N": "12"})),
            ("plan", "7", json!({"N": "7"})),
            ("plan", "true", json!({"BOOL": true})),
            ("plan", "null", json!({"NULL": true})),
            (r"plan.a\.b", "deep", json!({"S": "deep"})),
            ("plan.a", "deep", json!({"S": "deep"})),
        ])
        .prop_map(|(path, value, meant)| ModelQuery::Attribute(path, value, meant)),
    ]
}

pub(crate) fn encoded(text: &str) -> String {
    millrace_shared::http::percent::encode(text)
}

fn moment(seconds: i64) -> String {
    encoded(&millrace_shared::user::format_rfc3339_millis(time::OffsetDateTime::from_unix_timestamp(seconds).unwrap()))
}

impl ModelQuery {
    pub(crate) fn parameter(&self) -> (String, String) {
        let (name, value) = match self {
            Self::Status(text) => ("status", encoded(text)),
            Self::Prefix(text) => ("name_prefix", encoded(text)),
            Self::Like(text) => ("name_like", encoded(text)),
            Self::Domain(text) => ("email_domain", encoded(text)),
            Self::From(second) => ("from", second.to_string()),
            Self::To(second) => ("to", second.to_string()),
            Self::CreatedFrom(second) => ("created_from", moment(*second)),
            Self::UpdatedTo(second) => ("updated_to", moment(*second)),
            Self::ExpiresFrom(second) => ("expires_from", second.to_string()),
            Self::Attribute(path, value, _) => return (format!("attributes.{}", encoded(path)), encoded(value)),
        };
        (name.to_owned(), value)
    }

    fn holds(&self, person: &ScenePerson) -> bool {
        match self {
            Self::Status(status) => person.status.as_ref() == Some(status),
            Self::Prefix(prefix) => folded(&person.name).starts_with(&folded(prefix)),
            Self::Like(name) => is_like(&person.name, name),
            Self::Domain(domain) => {
                let own = person.email.as_ref().and_then(|email| email.split_once('@'));
                own.is_some_and(|(_, own)| folded(own) == folded(domain))
            }
            Self::From(second) => person.timestamp >= *second,
            Self::To(second) => person.timestamp <= *second,
            Self::CreatedFrom(second) => person.created_at.is_some_and(|created| created >= *second),
            Self::UpdatedTo(second) => person.updated_at.is_some_and(|updated| updated <= *second),
            Self::ExpiresFrom(second) => person.expires_at.is_some_and(|expires| expires >= *second),
            Self::Attribute(path, _, wanted) => {
                let names: &[&str] = match *path {
                    "plan" => &["plan"],
                    "plan.a" => &["plan", "a"],
                    _ => &["plan", "a.b"],
                };
                let step = |value: Option<Value>, name: &&str| value.and_then(|value| value["M"].get(*name).cloned());
                let found = names.iter().fold(person.attributes.clone(), step);
                let is =
                    |value: &Value| value == wanted || (number(value).is_some() && number(value) == number(wanted));
                found.is_some_and(|found| is(&found) || found["L"].as_array().is_some_and(|items| items.iter().any(is)))
            }
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    value["N"].as_str()?.parse().ok()
}

/// The text case-folded and in canonical form: the lower case of each letter's upper case, composed (NFC).
fn folded(text: &str) -> String {
    let capitals = text.nfd().flat_map(char::to_uppercase);
    capitals.flat_map(char::to_lowercase).nfc().collect()
}

/// Returns whether the name contains, for each word of the query, that word or a similar one.
fn is_like(name: &str, asked: &str) -> bool {
    let words = |text: &str| -> Vec<Vec<char>> {
        let words = text.split([' ', '_', ',', '.']).map(|word| folded(word).chars().filter(|c| *c != '\'').collect());
        words.filter(|word: &Vec<char>| !word.is_empty()).collect()
    };
    let mut asked = words(asked);
    if asked.iter().any(|word| word.len() > 1) {
        asked.retain(|word| word.len() > 1);
    }
    let name = words(name);
    !asked.is_empty() && asked.iter().all(|asked| name.iter().any(|word| differ_by_a_letter_at_most(asked, word)))
}

/// Returns whether two words are equal or differ by one letter that is missing, added, replaced or moved: without that
/// letter they are equal.
fn differ_by_a_letter_at_most(one: &[char], other: &[char]) -> bool {
    let without_one = |word: &[char]| -> BTreeSet<Vec<char>> {
        let removed =
            (0..if word.len() > 2 { word.len() } else { 0 }).map(|at| [&word[..at], &word[at + 1..]].concat());
        removed.chain([word.to_vec()]).collect()
    };
    !without_one(one).is_disjoint(&without_one(other))
}

/// A sort field, and whether the order is ascending.
pub(crate) fn sorted() -> impl Strategy<Value = (&'static str, bool)> {
    (proptest::sample::select(vec!["updated_at", "created_at", "timestamp", "name", "user_id"]), any::<bool>())
}

fn compare(sort: &str, one: &ScenePerson, other: &ScenePerson) -> Ordering {
    // A missing value sorts after every other one, as in PostgreSQL.
    let nothing_last = |second: Option<i64>| second.unwrap_or(i64::MAX);
    let first = match sort {
        "updated_at" => nothing_last(one.updated_at).cmp(&nothing_last(other.updated_at)),
        "created_at" => nothing_last(one.created_at).cmp(&nothing_last(other.created_at)),
        "timestamp" => one.timestamp.cmp(&other.timestamp),
        "name" => folded(&one.name).cmp(&folded(&other.name)),
        _ => Ordering::Equal,
    };
    first.then_with(|| (&one.id, one.timestamp).cmp(&(&other.id, other.timestamp)))
}

/// The ids of the people that a query finds, in order.
pub(crate) fn found(people: &[ScenePerson], asked: &[ModelQuery], sort: &str, ascends: bool) -> Vec<String> {
    let live = |person: &&ScenePerson| person.expires_at.is_none_or(|expires| expires > NOW.unix_timestamp());
    let mut found: Vec<_> = people.iter().filter(live).filter(|p| asked.iter().all(|asked| asked.holds(p))).collect();
    found.sort_by(|one, other| {
        let ordering = compare(sort, one, other);
        if ascends { ordering } else { ordering.reverse() }
    });
    found.into_iter().map(|person| person.id.clone()).collect()
}
