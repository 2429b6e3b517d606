//! A database with people, and search over it.

use millrace_local::postgres::NAME;
use millrace_search::config::SearchConfig;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::relational::store::{RelationalStore, apply};
use crate::replication::events::EventBuilder;
use crate::users_api::service::{ApiHandle, ServiceResponse};

pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);
/// The time of every change in these tests, according to the stream.
pub(crate) const AS_OF: &str = "2027-01-15T07:59:59.000Z";

/// A user record as the table stores it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ScenePerson {
    pub(crate) id: String,
    pub(crate) timestamp: i64,
    pub(crate) name: String,
    pub(crate) email: Option<String>,
    pub(crate) status: Option<String>,
    /// The DynamoDB JSON of `attributes`.
    pub(crate) attributes: Option<Value>,
    pub(crate) expires_at: Option<i64>,
    /// The times of creation and of the last update, in seconds; another program may have omitted them.
    pub(crate) created_at: Option<i64>,
    pub(crate) updated_at: Option<i64>,
}

impl ScenePerson {
    pub(crate) fn named(id: &str, name: &str) -> Self {
        let now = Some(NOW.unix_timestamp() - 60);
        Self { id: id.into(), timestamp: 1, name: name.into(), created_at: now, updated_at: now, ..Self::default() }
    }

    pub(crate) fn event(&self, number: u64) -> EventBuilder {
        let moment = |seconds: i64| {
            let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            json!({"S": millrace_shared::user::format_rfc3339_millis(moment)})
        };
        let mut image = json!({"user_id": {"S": self.id}, "timestamp": {"N": self.timestamp.to_string()},
            "name": {"S": self.name}, "version": {"N": "1"}});
        let optional = [
            ("email", self.email.as_ref().map(|text| json!({"S": text}))),
            ("status", self.status.as_ref().map(|text| json!({"S": text}))),
            ("attributes", self.attributes.clone()),
            ("expires_at", self.expires_at.map(|seconds| json!({"N": seconds.to_string()}))),
            ("created_at", self.created_at.map(moment)),
            ("updated_at", self.updated_at.map(moment)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                image[name] = value;
            }
        }
        EventBuilder::image(&self.id, number, &image.to_string()).at(&self.timestamp.to_string())
    }
}

/// A migrated database and search over it.
pub(crate) struct SearchScene {
    pub(crate) store: RelationalStore,
    pub(crate) search: ApiHandle,
}

impl SearchScene {
    pub(crate) async fn with_people(people: &[ScenePerson]) -> Self {
        let store = RelationalStore::start().await;
        let events: Vec<EventBuilder> = (1..).zip(people).map(|(number, person)| person.event(number)).collect();
        for some in events.chunks(500) {
            assert_eq!(apply(&store.sink, some).await.applied, some.len());
        }
        let search = over(&[("POSTGRES_URL", &store.url)]);
        Self { store, search }
    }

    /// The identifiers that a query finds, in order.
    pub(crate) async fn find(&self, question: &str) -> Vec<String> {
        let response = self.search.get(&format!("/search/users?{question}")).await;
        assert_eq!(response.status, 200, "{question}: {}", response.text);
        ids(&response)
    }
}

pub(crate) fn ids(response: &ServiceResponse) -> Vec<String> {
    response.json["users"].as_array().unwrap().iter().map(|user| user["user_id"].as_str().unwrap().to_owned()).collect()
}

/// Search at [`NOW`] with these environment variables.
pub(crate) fn over(variables: &[(&str, &str)]) -> ApiHandle {
    let key = "test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let usual = [("AUTH", "none"), ("CURSOR_KEYS", key)];
    let variables = usual.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config = SearchConfig::parse(&variables.collect::<Environment>()).unwrap();
    ApiHandle(millrace_search::app(&config, None, Clock::fixed(NOW)))
}

/// The URL of a port on which no server listens.
pub(crate) async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("postgres://{NAME}@{}/{NAME}", listener.local_addr().unwrap())
}
