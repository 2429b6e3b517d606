//! Every filter, sort order and cursor, compared with the model's results in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::model::{ModelQuery, asked, encoded, found, person, sorted};
use super::scene::{NOW, ScenePerson, SearchScene, ids};
use crate::relational::store::apply;

const PEOPLE: usize = 120;
const QUESTIONS: usize = 250;

fn drawn<T>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).unwrap().current()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_paged_search_matches_the_in_memory_model() {
    let mut runner = TestRunner::deterministic();
    let people: Vec<ScenePerson> =
        (0..PEOPLE).map(|n| ScenePerson { id: format!("p{n:03}"), ..drawn(&mut runner, &person()) }).collect();
    let scene = SearchScene::with_people(&people).await;
    let mut found_some = 0;
    for _ in 0..QUESTIONS {
        let asked = drawn(&mut runner, &proptest::collection::vec(asked(), 0..3));
        let asked: BTreeMap<_, _> = asked.into_iter().map(|asked| (asked.parameter().0, asked)).collect();
        let asked: Vec<_> = asked.into_values().collect();
        let ((sort, ascends), limit) = drawn(&mut runner, &(sorted(), 1..40_usize));
        let order = if ascends { "asc" } else { "desc" };
        let parameters: Vec<String> =
            asked.iter().map(ModelQuery::parameter).map(|(name, value)| format!("{name}={value}")).collect();
        let question = format!("{}&sort={sort}&order={order}&limit={limit}", parameters.join("&"));
        let mut pages = Vec::new();
        let mut path = format!("/search/users?{question}");
        loop {
            let response = scene.search.get(&path).await;
            assert_eq!(response.status, 200, "{question}: {}", response.text);
            let page = ids(&response);
            assert!(page.len() <= limit);
            pages.extend(page);
            let Some(cursor) = response.json["next_cursor"].as_str() else { break };
            let link = format!("</search/users?{question}&cursor={cursor}>; rel=\"next\"");
            assert_eq!(response.header("link"), link.replace("?&", "?"));
            path = format!("/search/users?{question}&cursor={cursor}");
        }
        let wanted = found(&people, &asked, sort, ascends);
        assert_eq!(pages, wanted, "{question} {asked:?}");
        found_some += usize::from(!wanted.is_empty());
    }
    assert!(found_some > QUESTIONS / 3, "{found_some} of {QUESTIONS} questions found anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_likest_name_comes_first_and_a_cursor_goes_on_after_it() {
    let names = ["Ada Lovelace", "Ada Lovelace King", "Adam Lovelace", "Grace Hopper", "Lovelace Ada"];
    let people: Vec<_> = (0..).zip(names).map(|(n, name)| ScenePerson::named(&format!("p{n}"), name)).collect();
    let scene = SearchScene::with_people(&people).await;
    // The order of words is irrelevant to similarity: the two names with exactly these words tie and are sorted by
    // descending identifier.
    assert_eq!(scene.find("name_like=ada%20lovelace").await, ["p4", "p0", "p2", "p1"]);
    let first = scene.search.get("/search/users?name_like=ada%20lovelace&limit=2").await;
    let next = first.json["next_cursor"].as_str().unwrap();
    assert_eq!(scene.find(&format!("name_like=ada%20lovelace&limit=2&cursor={next}")).await, ["p2", "p1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_word_matches_with_one_typo_and_any_separator() {
    let names = ["Ada King Lovelace", "Grace O\u{2019}Brien", "Li Wei", "Ada Hopper"];
    let people: Vec<_> = (0..).zip(names).map(|(n, name)| ScenePerson::named(&format!("p{n}"), name)).collect();
    let scene = SearchScene::with_people(&people).await;
    for (like, found) in [
        ("lovelace", &["p0"][..]),
        ("LOVELACE, A.", &["p0"]),
        ("lovlace", &["p0"]),
        ("lovellace", &["p0"]),
        ("lovelase", &["p0"]),
        ("lvoelace", &["p0"]),
        ("ovelacel", &["p0"]),
        ("eovlelace", &[]),
        ("ada lovelace", &["p0"]),
        ("ada byron", &[]),
        ("adaa", &["p3", "p0"]),
        ("obrien", &["p1"]),
        ("o'brian", &["p1"]),
        ("li", &["p2"]),
        ("la", &[]),
        ("li wie", &["p2"]),
        ("a", &[]),
        ("---", &[]),
    ] {
        assert_eq!(scene.find(&format!("name_like={}", encoded(like))).await, found, "{like}");
    }
    for (number, between) in (100..).zip(" -.,;:/|()[]\"_\u{a0}\u{3000}".chars()) {
        let eva = ScenePerson::named("p9", &format!("Eva{between}Byron"));
        assert_eq!(apply(&scene.store.sink, &[eva.event(number)]).await.applied, 1);
        let like = encoded(&format!("byrom{between}eve"));
        assert_eq!(scene.find(&format!("name_like={like}&sort=user_id")).await, ["p9"], "{between:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_domains_are_found_in_whatever_case_and_unicode_spelling() {
    let person =
        |id: &str, name: &str, email: &str| ScenePerson { email: Some(email.into()), ..ScenePerson::named(id, name) };
    let scene = SearchScene::with_people(&[
        person("greek", "Γιάννης Παππάς", "a@Bank.EXAMPLE"),
        person("zoe", "Zoe\u{308} Strauß", "a@xn--BCHER-kva.example"),
        person("long", &"ß".repeat(256), "a@x.org"),
    ])
    .await;
    for (question, text, found) in [
        ("name_prefix", "ΓΙΆΝΝΗΣ", &["greek"][..]),
        ("name_prefix", "γιάννησ ΠΑΠΠΆΣ", &["greek"]),
        ("name_prefix", "Γιαννης", &[]),
        ("name_prefix", "Zoë", &["zoe"]),
        ("name_prefix", "ZOE\u{308} STRAUSS", &["zoe"]),
        ("name_prefix", "Zoe ", &[]),
        ("name_prefix", &"SS".repeat(128), &["long"]),
        ("name_like", "παππασ ΓΙΆΝΝΗΣ", &["greek"]),
        ("name_like", "strauss", &["zoe"]),
        ("name_like", "ZOË STRAUS", &["zoe"]),
        ("email_domain", "BANK.example", &["greek"]),
        ("email_domain", "xn--bcher-KVA.example", &["zoe"]),
    ] {
        assert_eq!(scene.find(&format!("{question}={}", encoded(text))).await, found, "{question}={text}");
    }
    let composed = person("composed", "Zoë Strauss", "a@example.com");
    assert_eq!(apply(&scene.store.sink, &[composed.event(100)]).await.applied, 1);
    assert_eq!(scene.find("name_prefix=zo%C3%AB&sort=name").await, ["composed", "zoe"], "one name for the order, too");
    // An email that the API would reject is not returned as a user's email, and yet its domain is counted, in any
    // format.
    let others = [person("one", "One", "a@BÜCHER.example"), person("two", "Two", "\"@\"@bu\u{308}cher.example")];
    let events: Vec<_> = (101..).zip(&others).map(|(number, person)| person.event(number)).collect();
    assert_eq!(apply(&scene.store.sink, &events).await.applied, 2);
    let counted = scene.search.get("/stats/users?domains=1").await;
    assert_eq!(counted.json["domains"], json!([{"domain": "bücher.example", "records": 2}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn prefix_matches_are_sorted_by_name_unless_sort_is_given() {
    let names = ["Ada Lovelace", "adam", "Ada Byron", "Eve"];
    let people = (0..).zip(names).map(|(n, name)| ScenePerson {
        updated_at: Some(NOW.unix_timestamp() - n),
        ..ScenePerson::named(&format!("p{n}"), name)
    });
    let scene = SearchScene::with_people(&people.collect::<Vec<_>>()).await;
    assert_eq!(scene.find("name_prefix=ada").await, ["p2", "p0", "p1"]);
    assert_eq!(scene.find("name_prefix=ada&order=desc").await, ["p1", "p0", "p2"]);
    assert_eq!(scene.find("name_prefix=ada&sort=updated_at").await, ["p0", "p1", "p2"]);
    assert_eq!(
        scene.find("name_prefix=ada&name_like=ada").await[0],
        "p1",
        "the most similar first, if name_like is given"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_is_valid_only_for_its_own_query() {
    let people: Vec<_> = (0..9).map(|n| ScenePerson::named(&format!("p{n}"), "Ada")).collect();
    let scene = SearchScene::with_people(&people).await;
    let first = scene.search.get("/search/users?name_prefix=a&limit=3").await;
    let cursor = first.json["next_cursor"].as_str().unwrap();
    for question in ["name_prefix=a&limit=5", "limit=2&name_prefix=a&fields=user_id"] {
        let response = scene.search.get(&format!("/search/users?{question}&cursor={cursor}")).await;
        assert_eq!(response.status, 200, "{question}: {}", response.text);
    }
    for question in ["", "name_prefix=ad&", "name_prefix=a&order=desc&", "name_prefix=a&sort=user_id&", "name_like=a&"]
    {
        let response = scene.search.get(&format!("/search/users?{question}cursor={cursor}")).await;
        assert_eq!((response.status, response.problem()), (400, "invalid-request"), "{question}");
        assert_eq!(response.json["errors"][0]["parameter"], "cursor");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn search_returns_users_as_the_api_does_without_rounding_numbers() {
    let exact = "0.12345678901234567890123456789012345678";
    let ada = ScenePerson {
        email: Some("ada@example.com".into()),
        status: Some("active".into()),
        attributes: Some(json!({"M": {"exact": {"N": exact}, "deep": {"M": {"list": {"L": [{"BOOL": false}]}}}}})),
        expires_at: Some(NOW.unix_timestamp() + 60),
        ..ScenePerson::named("ada", "Ada")
    };
    let scene = SearchScene::with_people(&[ada]).await;
    let response = scene.search.get(&format!("/search/users?attributes.exact={exact}")).await;
    let record = concat!(
        r#"{"user_id":"ada","timestamp":1,"name":"Ada","email":"ada@example.com","status":"active","#,
        r#""attributes":{"deep":{"list":[false]},"exact":0.12345678901234567890123456789012345678},"#,
        r#""expires_at":1795341660,"version":1,"created_at":"2026-11-22T09:59:00.000Z","updated_at":"2026-11-22T09:59:00.000Z"}"#
    );
    assert!(
        response.text.starts_with(&format!("{{\"users\":[{record}],\"next_cursor\":null,\"as_of\":")),
        "{}",
        response.text
    );
    let other = format!("/search/users?attributes.exact={}", exact.replace("678", "679"));
    assert_eq!(ids(&scene.search.get(&other).await), [""; 0]);
    let response = scene.search.get("/search/users?fields=name").await;
    assert!(response.text.starts_with(r#"{"users":[{"name":"Ada"}]"#), "{}", response.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_characters_anywhere_find_nothing_and_harm_nothing() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada")]).await;
    let odd = ["'; drop table users; --", "\" or 1=1", "$1", "{}", "\\", "%", "_", "\u{1F600}", "null)", "/**/"];
    let texts = ["status", "name_prefix", "name_like", "attributes.plan"];
    for odd in odd {
        let value = encoded(odd);
        for name in texts {
            assert_eq!(scene.find(&format!("{name}={value}")).await, [""; 0], "{name}={odd}");
        }
        for name in [
            "email_domain",
            "from",
            "to",
            "created_from",
            "updated_to",
            "expires_to",
            "sort",
            "order",
            "limit",
            "cursor",
            "fields",
            "nothing",
        ] {
            let response = scene.search.get(&format!("/search/users?{name}={value}")).await;
            assert_eq!(
                (response.status, response.problem()),
                (400, "invalid-request"),
                "{name}={odd}: {}",
                response.text
            );
            assert_eq!(response.json["errors"][0]["parameter"], name, "{}", response.text);
        }
    }
    assert_eq!(scene.find("").await, ["ada"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_search_parameter_is_rejected_with_the_allowed_ones() {
    let scene = SearchScene::with_people(&[]).await;
    let response = scene.search.get("/search/users?state=active&sort=similarity&attribute.plan=pro").await;
    assert_eq!(response.status, 400);
    for text in ["\"state\"", "\"attribute.plan\"", "attributes.…", "similarity requires the parameter name_like"] {
        assert!(response.text.contains(text), "{text}: {}", response.text);
    }
    let unknown = scene.search.get("/search/users?name_like=ada&sort=likeness").await;
    assert_eq!((unknown.status, unknown.json["errors"][0]["parameter"].as_str()), (400, Some("sort")));
    assert!(unknown.text.contains("must be one of updated_at"), "{}", unknown.text);
}
