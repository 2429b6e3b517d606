//! The guarantees of the PostgreSQL replica.

use std::collections::BTreeMap;

use millrace_shared::change::CanonicalKey;
use millrace_shared::replica_item::ReplicaItem;
use millrace_sinks::dynamodb::DynamoDbSink;
use millrace_sinks::{Replica, Sink};
use time::Duration;

use crate::relational::store::{RelationalStore, sink};
use crate::relational::tcp_proxy::TcpProxy;
use crate::replication::events::{EventBuilder, event, user};
use crate::replication::rig::{REPLICA, ReplicationRig, deliver_batch};

/// The contents of a replica by user.
async fn held(replica: &dyn Replica, users: &[&str]) -> BTreeMap<String, ReplicaItem> {
    let key = |user: &&str| format!(r#"{{"timestamp":{{"N":"1"}},"user_id":{{"S":"{user}"}}}}"#);
    let keys: Vec<_> = users.iter().map(|user| CanonicalKey::parse(&key(user)).unwrap()).collect();
    let found = replica.read(&keys).await.unwrap().held;
    users.iter().zip(found).filter_map(|(user, held)| Some(((*user).to_owned(), held?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_23_a_relational_replica_ends_as_the_other_does() {
    let (rig, store) = (ReplicationRig::start().await, RelationalStore::start().await);
    let line = TcpProxy::to(&store.url).await;
    let dynamodb = || DynamoDbSink::new(rig.dynamodb.clone(), REPLICA, 8, Duration::days(8));
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(dynamodb()), Box::new(sink(line.url()))];
    let replicator = rig.replicator_with(sinks);
    let mut whole = user("ada", "1", "Ada");
    whole["more"] = serde_json::json!({"NS": ["1.50", "12345678901234567890123456789012345678"]});
    let first = [
        EventBuilder::named("ada", 1, "First"),
        EventBuilder::named("bob", 2, "Bob"),
        EventBuilder::named("cid", 3, "Cid"),
        EventBuilder::image("poison", 4, &user("poison", "1", "zero \u{0}").to_string()),
    ];
    let second = [
        EventBuilder::image("ada", 5, &whole.to_string()),
        EventBuilder::deleted("bob", 6),
        EventBuilder::expired("cid", 7),
    ];
    assert_eq!(deliver_batch(&replicator, &event(&first)).await.identifier(), None);
    line.lose_the_answer();
    assert_eq!(deliver_batch(&replicator, &event(&second)).await.identifier(), None);
    line.cut();
    // All changes again, with the old ones last.
    assert_eq!(deliver_batch(&replicator, &event(&second)).await.identifier(), None);
    assert_eq!(deliver_batch(&replicator, &event(&first)).await.identifier(), None);

    let users = ["ada", "bob", "cid"];
    let (relational, other) = (held(&store.sink, &users).await, held(&dynamodb(), &users).await);
    for user in users {
        let (relational, other) = (&relational[user], &other[user]);
        assert_eq!(relational.revision, other.revision, "{user}");
        assert_eq!(relational.expired(), other.expired(), "{user}");
        match (relational.item(), other.item()) {
            (Some(relational), Some(other)) => assert_eq!(relational.diff_attribute_names(other), [""; 0], "{user}"),
            (None, None) => assert_ne!(user, "ada"),
            _ => panic!("{user} is in one of them"),
        }
    }
    assert!(relational["cid"].expired() && !relational["bob"].expired());
    let aside = rig.quarantined().await;
    assert_eq!(aside.len(), 1, "what a row cannot hold goes aside, and the other replica has it: {aside:?}");
    assert!(aside[0].starts_with("quarantine/replicator/postgres/Users/"));
    assert!(held(&dynamodb(), &["poison"]).await.contains_key("poison"));
}
