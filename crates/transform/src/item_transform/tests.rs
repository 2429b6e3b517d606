use proptest::prelude::*;

use super::*;
use crate::attribute_path::{AttributePath, PathStep};

fn path(text: &str) -> AttributePath {
    AttributePath::parse(text).unwrap()
}

fn paths(texts: &[&str]) -> Vec<AttributePath> {
    texts.iter().map(|text| path(text)).collect()
}

fn keys() -> BTreeMap<String, HashKey> {
    BTreeMap::from([("pii".to_owned(), HashKey::new(b"0123456789abcdef").unwrap())])
}

fn with(attributes: AttributeSettings) -> ItemTransform {
    assert_eq!(attributes.problems(), []);
    ItemTransform::new(&TransformSettings { filter: None, attributes }, &keys()).unwrap()
}

fn apply(transform: &ItemTransform, image: &str) -> Result<Option<String>, TransformError> {
    let image: &RawValue = serde_json::from_str(image).unwrap();
    transform.apply(&["id".to_owned()], ItemImage::parse(image).unwrap())
}

fn applied(attributes: AttributeSettings, image: &str) -> String {
    apply(&with(attributes), image).unwrap().unwrap()
}

const IMAGE: &str = r#"{"id":{"S":"1"}, "a" : {"M":{"b":{"S":"x\u0041"},"c":{"L":[{"N":"1"},{"N":"2"},{"N":"3"}]}}},
    "d":{"S":"Größere"},"n":{"NULL":true}}"#;

#[test]
fn include_passes_only_what_is_named_with_its_bytes() {
    let include =
        |texts: &[&str]| applied(AttributeSettings { include: Some(paths(texts)), ..Default::default() }, IMAGE);
    assert_eq!(include(&["id"]), r#"{"id":{"S":"1"}}"#);
    assert_eq!(include(&["d"]), r#"{"id":{"S":"1"},"d":{"S":"Größere"}}"#, "the key passes");
    assert_eq!(include(&["id", "a.b"]), r#"{"id":{"S":"1"},"a":{"M":{"b":{"S":"x\u0041"}}}}"#);
    assert_eq!(include(&["id", "a.c[2]", "a.c[0]"]), r#"{"id":{"S":"1"},"a":{"M":{"c":{"L":[{"N":"1"},{"N":"3"}]}}}}"#);
    assert_eq!(include(&["id", "a.x", "d.x", "n.x", "a[0]"][..4]), r#"{"id":{"S":"1"}}"#);
}

#[test]
fn exclude_removes_what_is_named() {
    let exclude =
        |texts: &[&str]| applied(AttributeSettings { exclude: Some(paths(texts)), ..Default::default() }, IMAGE);
    assert_eq!(exclude(&["a", "x"]), r#"{"id":{"S":"1"},"d":{"S":"Größere"},"n":{"NULL":true}}"#);
    assert_eq!(
        exclude(&["a.c[1]", "a.b", "d", "n.x"]),
        r#"{"id":{"S":"1"},"a":{"M":{"c":{"L":[{"N":"1"},{"N":"3"}]}}},"n":{"NULL":true}}"#
    );
    assert_eq!(exclude(&["a.b", "a.c", "d", "n"]), r#"{"id":{"S":"1"},"a":{"M":{}}}"#);
}

#[test]
fn hash_truncate_and_rename_apply_in_this_order() {
    let rules = AttributeSettings {
        include: Some(paths(&["id", "a", "d"])),
        hash: BTreeMap::from([(path("a.b"), "pii".to_owned()), (path("d"), "pii".to_owned())]),
        truncate: BTreeMap::from([(path("d"), 12)]),
        rename: BTreeMap::from([
            (path("a"), "d".to_owned()),
            (path("d"), "name".to_owned()),
            (path("a.b"), "B".to_owned()),
        ]),
        ..Default::default()
    };
    let key = &keys()["pii"];
    let hash = |json: &str| key.hash(json).unwrap();
    let (b, d) = (hash(r#"{"S":"xA"}"#), &hash(r#"{"S":"Größere"}"#)[..12]);
    let expected = format!(
        r#"{{"id":{{"S":"1"}},"d":{{"M":{{"B":{{"S":"{b}"}},"c":{{"L":[{{"N":"1"}},{{"N":"2"}},{{"N":"3"}}]}}}}}},"name":"#,
    ) + &format!(r#"{{"S":"{d}"}}}}"#);
    assert_eq!(applied(rules, IMAGE), expected);
    let truncate = |characters| AttributeSettings {
        include: Some(paths(&["d", "n"])),
        truncate: BTreeMap::from([(path("d"), characters), (path("n"), 1)]),
        ..Default::default()
    };
    assert_eq!(applied(truncate(4), IMAGE), r#"{"id":{"S":"1"},"d":{"S":"Größ"},"n":{"NULL":true}}"#);
    assert_eq!(applied(truncate(7), IMAGE), r#"{"id":{"S":"1"},"d":{"S":"Größere"},"n":{"NULL":true}}"#);
}

#[test]
fn unmaskable_attribute_is_an_error_without_values() {
    let hash = AttributeSettings { hash: BTreeMap::from([(path("a.b"), "pii".to_owned())]), ..Default::default() };
    let element = AttributeSettings { hash: BTreeMap::from([(path("a[0]"), "pii".to_owned())]), ..Default::default() };
    let truncate = AttributeSettings { truncate: BTreeMap::from([(path("a"), 3)]), ..Default::default() };
    let exclude = AttributeSettings { exclude: Some(paths(&["a[0]"])), ..Default::default() };
    let rename = AttributeSettings { rename: BTreeMap::from([(path("a"), "b".to_owned())]), ..Default::default() };
    for (rules, image, expected) in [
        (&hash, r#"{"id":{"S":"1"},"a":{"S":"secret"}}"#, TransformError::Unexpected("a".to_owned())),
        (&hash, r#"{"id":{"S":"1"},"a":{"M":{"b":{"N":"secret"}}}}"#, TransformError::Unhashable("b".to_owned())),
        (&truncate, r#"{"id":{"S":"1"},"a":{"N":"7"}}"#, TransformError::NotAString("a".to_owned())),
        (&exclude, r#"{"id":{"S":"1"},"a":{"M":{}}}"#, TransformError::Unexpected("a".to_owned())),
        (&rename, r#"{"b":{"S":"1"},"a":{"S":"2"}}"#, TransformError::Collision("b".to_owned())),
        (&rename, r#"{"a":{"S":"2"},"b":{"S":"1"}}"#, TransformError::Collision("b".to_owned())),
        // The same with other members after the value, and with an escape sequence in another name.
        (&hash, r#"{"a":{"M":{"b":{"N":"secret"},"c":{"S":"1"}}}}"#, TransformError::Unhashable("b".to_owned())),
        (&hash, r#"{"a":{"S":"secret"},"\u0063":{"S":"1"},"d":{"S":"1"}}"#, TransformError::Unexpected("a".to_owned())),
        (&element, r#"{"a":{"L":[{"N":"secret"},{"S":"1"}]}}"#, TransformError::Unhashable("a".to_owned())),
    ] {
        let error = apply(&with(rules.clone()), image).unwrap_err();
        assert_eq!(error, expected, "{image}");
        assert!(!error.to_string().contains("secret"));
    }
    let error = apply(&with(hash), r#"{"id":{"S":"1"},"a":["secret"]}"#).unwrap_err();
    assert!(matches!(error, TransformError::Malformed(_)) && !error.to_string().contains("secret"), "{error}");
}

#[test]
fn filter_selects_by_the_source_s_image() {
    let filter = RowFilter::parse(&[json!({"status": {"S": ["paid"]}})]).unwrap();
    let attributes = AttributeSettings { include: Some(paths(&["id"])), ..Default::default() };
    let transform = ItemTransform::new(&TransformSettings { filter: Some(filter), attributes }, &keys()).unwrap();
    let paid = r#"{"id":{"S":"1"},"status":{"S":"paid"}}"#;
    assert_eq!(apply(&transform, paid).unwrap().unwrap(), r#"{"id":{"S":"1"}}"#);
    assert_eq!(apply(&transform, r#"{"id":{"S":"1"},"status":{"S":"draft"}}"#).unwrap(), None);
    let key = CanonicalKey::parse(r#"{"id":{"S":"1"}}"#).unwrap();
    let item = transform.apply_to_item(&key, &RawItem::parse(paid).unwrap()).unwrap().unwrap();
    assert_eq!(item.encode(), r#"{"id":{"S":"1"}}"#);
}

#[test]
fn contradicting_rules_are_reported_with_their_pointer() {
    let one = |text: &str, name: &str| BTreeMap::from([(path(text), name.to_owned())]);
    let usual = AttributeSettings::default;
    for (rules, pointer, part) in [
        (
            AttributeSettings { include: Some(paths(&["a"])), exclude: Some(paths(&["b"])), ..usual() },
            "/exclude",
            "in addition to",
        ),
        (AttributeSettings { include: Some(paths(&[])), ..usual() }, "/include", "is empty"),
        (
            AttributeSettings { include: Some(paths(&["a", "a.b"])), ..usual() },
            "/include/1",
            "overlaps with /attributes/include/0",
        ),
        (AttributeSettings { exclude: Some(paths(&["a.b", "a[0]"])), ..usual() }, "/exclude/1", "uses a as a map, and"),
        (
            AttributeSettings { include: Some(paths(&["a"])), hash: one("b", "pii"), ..usual() },
            "/hash/b",
            "add it there",
        ),
        (
            AttributeSettings { include: Some(paths(&["a.b"])), hash: one("a", "pii"), ..usual() },
            "/hash/a",
            "as a whole",
        ),
        (
            AttributeSettings { exclude: Some(paths(&["a.b"])), hash: one("a", "pii"), ..usual() },
            "/hash/a",
            "is removed",
        ),
        (
            AttributeSettings { hash: one("a", "pii"), truncate: BTreeMap::from([(path("a.b"), 1)]), ..usual() },
            "/truncate/a.b",
            "only the whole hash",
        ),
        (
            AttributeSettings { hash: one("a", "pii"), rename: one("a.b", "c"), ..usual() },
            "/rename/a.b",
            "inside the value",
        ),
        (
            AttributeSettings { exclude: Some(paths(&["a"])), rename: one("a", "c"), ..usual() },
            "/rename/a",
            "is removed by",
        ),
        (AttributeSettings { rename: one("a[0]", "c"), ..usual() }, "/rename/a[0]", "has no name"),
        (AttributeSettings { rename: one("a", ""), ..usual() }, "/rename/a", "is empty"),
        (AttributeSettings { rename: one("a", "a"), ..usual() }, "/rename/a", "the name that it has"),
        (
            AttributeSettings { include: Some(paths(&["a", "b"])), rename: one("a", "b"), ..usual() },
            "/rename/a",
            "choose another",
        ),
        (
            AttributeSettings {
                rename: BTreeMap::from([(path("a"), "c".to_owned()), (path("b"), "c".to_owned())]),
                ..usual()
            },
            "/rename/b",
            "as for /attributes/rename/a",
        ),
    ] {
        let problems = rules.problems();
        assert_eq!(problems.len(), 1, "{rules:?}: {problems:?}");
        assert_eq!(problems[0].pointer, pointer, "{rules:?}");
        assert!(problems[0].reason.contains(part), "{rules:?}: {}", problems[0].reason);
    }
    let swap = BTreeMap::from([(path("a"), "b".to_owned()), (path("b"), "a".to_owned())]);
    assert_eq!(AttributeSettings { include: Some(paths(&["a", "b"])), rename: swap, ..usual() }.problems(), []);
}

#[test]
fn key_and_reserved_attributes_are_left_alone() {
    let one = |text: &str, name: &str| BTreeMap::from([(path(text), name.to_owned())]);
    let names = ["id".to_owned()];
    let usual = AttributeSettings::default;
    for (rules, pointer) in [
        (AttributeSettings { include: Some(paths(&["a"])), ..usual() }, "/include"),
        (AttributeSettings { exclude: Some(paths(&["id"])), ..usual() }, "/exclude/0"),
        (AttributeSettings { hash: one("id", "pii"), ..usual() }, "/hash/id"),
        (AttributeSettings { truncate: BTreeMap::from([(path("id"), 1)]), ..usual() }, "/truncate/id"),
        (AttributeSettings { rename: one("id", "b"), ..usual() }, "/rename/id"),
        (AttributeSettings { rename: one("a", "id"), ..usual() }, "/rename/a"),
    ] {
        let problems = rules.key_problems(&names);
        assert_eq!(
            problems.iter().map(|problem| problem.pointer.as_str()).collect::<Vec<_>>(),
            [pointer],
            "{problems:?}"
        );
        assert_eq!(rules.key_problems(&["a.other".to_owned()]).len(), usize::from(rules.include.is_some()));
        if pointer != "/rename/a" {
            let image = r#"{"id":{"S":"1"},"a":{"S":"2"}}"#;
            assert!(applied(rules, image).contains(r#""id":{"S":"1"}"#), "{pointer}");
        }
    }
    let reserved = AttributeSettings { exclude: Some(paths(&["_rev"])), rename: one("a", "_rev"), ..usual() };
    let problems = reserved.reserved_problems(&["_rev"]);
    assert_eq!(
        problems.iter().map(|problem| problem.pointer.as_str()).collect::<Vec<_>>(),
        ["/exclude/0", "/rename/a"]
    );
}

#[test]
fn digest_identifies_the_function() {
    let digest = |attributes: AttributeSettings| with(attributes).digest().to_owned();
    let hashed = |include: &[&str]| AttributeSettings {
        include: Some(paths(include)),
        hash: BTreeMap::from([(path("a"), "pii".to_owned())]),
        ..Default::default()
    };
    assert_eq!(digest(hashed(&["a", "b"])), digest(hashed(&["b", "a"])));
    assert_ne!(digest(hashed(&["a", "b"])), digest(hashed(&["a"])));
    assert_ne!(
        digest(hashed(&["a"])),
        digest(AttributeSettings { include: Some(paths(&["a"])), ..Default::default() })
    );
    let rotated = BTreeMap::from([("pii".to_owned(), HashKey::new(b"another key: 16+ bytes").unwrap())]);
    let settings = TransformSettings { filter: None, attributes: hashed(&["a"]) };
    assert_ne!(ItemTransform::new(&settings, &rotated).unwrap().digest(), digest(hashed(&["a"])));
    let missing = ItemTransform::new(&settings, &BTreeMap::new()).unwrap_err();
    assert_eq!(missing.to_string(), "hash key \"pii\" is missing");
}

/// A value of any type, up to three levels deep, with names and texts of few characters.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        "[ab\\\\\"é]{0,4}".prop_map(|text| json!({"S": text})),
        (-99..99_i32).prop_map(|number| json!({"N": number.to_string()})),
        any::<bool>().prop_map(|flag| json!({"BOOL": flag})),
        Just(json!({"NULL": true})),
        proptest::collection::btree_set("[ab]{1,2}", 1..3).prop_map(|set| json!({"SS": set})),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::btree_map("[abcd]", inner.clone(), 0..4).prop_map(|map| json!({"M": map})),
            proptest::collection::vec(inner, 0..4).prop_map(|list| json!({"L": list})),
        ]
    })
}

fn items() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[abcde]", values(), 0..5).prop_map(|mut item| {
        item.insert("id".to_owned(), json!({"S": "the key"}));
        json!(item)
    })
}

fn any_path(lists: bool) -> impl Strategy<Value = AttributePath> {
    let step = prop_oneof![3 => "[abcd]".prop_map(PathStep::Member), 1 => (0..3_usize).prop_map(PathStep::Element)];
    ("[abcde]", proptest::collection::vec(step, 0..3)).prop_map(move |(attribute, steps)| {
        let steps = steps.into_iter().filter(|step| lists || matches!(step, PathStep::Member(_)));
        let inner = steps.map(|step| match step {
            PathStep::Member(name) => format!(".{name}"),
            PathStep::Element(index) => format!("[{index}]"),
        });
        path(&format!("{attribute}{}", inner.collect::<String>()))
    })
}

/// Rules without contradictions, without those that contradict earlier ones.
fn rules(lists: bool) -> impl Strategy<Value = AttributeSettings> {
    let some_paths = || proptest::collection::vec(any_path(lists), 1..4);
    let chosen = prop_oneof![
        1 => Just((None, None)),
        3 => some_paths().prop_map(|paths| (Some(paths), None)),
        2 => some_paths().prop_map(|paths| (None, Some(paths))),
    ];
    let masks = proptest::collection::vec((0..3_u8, any_path(lists), 0..9_usize, "[abcdef]"), 0..4);
    (chosen, masks).prop_map(|((include, exclude), masks)| {
        let mut rules = AttributeSettings::default();
        let mut add = |change: &dyn Fn(&mut AttributeSettings)| {
            let mut changed = rules.clone();
            change(&mut changed);
            if changed.problems().is_empty() {
                rules = changed;
            }
        };
        for path in include.into_iter().flatten() {
            add(&|rules| rules.include.get_or_insert_default().push(path.clone()));
        }
        for path in exclude.into_iter().flatten() {
            add(&|rules| rules.exclude.get_or_insert_default().push(path.clone()));
        }
        for (kind, path, characters, name) in masks {
            add(&|rules| match kind {
                0 => drop(rules.hash.insert(path.clone(), "pii".to_owned())),
                1 => drop(rules.truncate.insert(path.clone(), characters)),
                _ => drop(rules.rename.insert(path.clone(), name.clone())),
            });
        }
        rules
    })
}

/// Returns the paths of all values that are not maps; a list is not entered, because its elements move.
fn leaves(prefix: &str, value: &Value, found: &mut Vec<AttributePath>) {
    for (name, value) in value.as_object().unwrap() {
        let name_path = format!("{prefix}{name}");
        match value.get("M") {
            Some(members) if !members.as_object().unwrap().is_empty() => {
                leaves(&format!("{name_path}."), members, found);
            }
            _ => found.push(path(&name_path)),
        }
    }
}

fn find(path: &AttributePath, text: &str) -> Option<String> {
    let image: &RawValue = serde_json::from_str(text).unwrap();
    path.find(ItemImage::parse(image).unwrap()).unwrap().map(|value| value.get().to_owned())
}

proptest! {
    #[test]
    fn function_is_total_and_keeps_the_key(rules in rules(true), item in items()) {
        let text = item.to_string();
        if let Ok(result) = apply(&with(rules), &text) {
            let result: Value = serde_json::from_str(&result.unwrap()).unwrap();
            prop_assert_eq!(&result["id"], &item["id"]);
        }
    }

    #[test]
    fn no_text_makes_it_panic(rules in rules(true), text in r#"\{[\{\}\[\]":,SNMLa01]{0,24}\}"#) {
        if let Ok(image) = serde_json::from_str::<&RawValue>(&text) {
            let _ = with(rules).apply(&[], ItemImage::parse(image).unwrap());
        }
    }

    #[test]
    fn only_what_is_included_passes(rules in rules(false), item in items()) {
        let included = rules.include.clone().map(|mut paths| { paths.push(path("id")); paths });
        let rules = AttributeSettings { rename: BTreeMap::new(), ..rules };
        if let (Some(included), Ok(Some(text))) = (included, apply(&with(rules), &item.to_string())) {
            let mut found = Vec::new();
            leaves("", &serde_json::from_str(&text).unwrap(), &mut found);
            for leaf in found {
                prop_assert!(included.iter().any(|path| path.contains(&leaf)), "{} in {}", leaf, text);
            }
        }
    }

    #[test]
    fn nothing_that_is_excluded_passes_and_everything_else_does(rules in rules(false), item in items()) {
        let rules = AttributeSettings { include: None, exclude: rules.exclude, ..Default::default() };
        if let Ok(Some(text)) = apply(&with(rules.clone()), &item.to_string()) {
            let excluded = rules.exclude.unwrap_or_default();
            for path in &excluded {
                prop_assert_eq!(find(path, &text), None);
            }
            let mut found = Vec::new();
            leaves("", &item, &mut found);
            let is_apart = |leaf: &&AttributePath| {
                !excluded.iter().any(|path| path.contains(leaf) || leaf.contains(path))
            };
            for leaf in found.iter().filter(is_apart) {
                prop_assert_eq!(find(leaf, &text), find(leaf, &item.to_string()));
            }
        }
    }

    #[test]
    fn hashed_value_is_replaced_wherever_it_is(rules in rules(false), item in items()) {
        let rules = AttributeSettings { rename: BTreeMap::new(), truncate: BTreeMap::new(), ..rules };
        let source = item.to_string();
        if let Ok(Some(text)) = apply(&with(rules.clone()), &source) {
            for path in rules.hash.keys() {
                let expected = find(path, &source).map(|value| {
                    format!(r#"{{"S":"{}"}}"#, keys()["pii"].hash(&value).unwrap())
                });
                prop_assert_eq!(find(path, &text), expected);
            }
        }
    }

    #[test]
    fn item_of_the_stream_and_item_of_the_table_give_the_same(rules in rules(true), item in items()) {
        let transform = with(rules);
        let key = CanonicalKey::parse(r#"{"id":{"S":"the key"}}"#).unwrap();
        let of_stream = apply(&transform, &item.to_string()).map(|text| RawItem::parse(&text.unwrap()).unwrap());
        let of_table = transform.apply_to_item(&key, &RawItem::parse(&item.to_string()).unwrap());
        match (of_stream, of_table) {
            (Ok(one), Ok(other)) => prop_assert!(one.eq_by_value(&other.unwrap())),
            (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
        }
    }

    #[test]
    fn selection_and_truncation_are_idempotent(rules in rules(false), item in items()) {
        let rules = AttributeSettings { hash: BTreeMap::new(), rename: BTreeMap::new(), ..rules };
        let transform = with(rules);
        if let Ok(Some(once)) = apply(&transform, &item.to_string()) {
            prop_assert_eq!(apply(&transform, &once).unwrap().unwrap(), once);
        }
    }

    #[test]
    fn without_rules_the_bytes_are_untouched(item in items(), space in "[ \n]{0,2}") {
        let text = item.to_string().replacen('{', &format!("{{{space}"), 1);
        prop_assert_eq!(apply(&with(AttributeSettings::default()), &text).unwrap().unwrap(), text);
    }
}
