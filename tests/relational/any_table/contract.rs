//! The properties that every sink has, for the table of a document.

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_shared::revision::Revision;
use serde_json::json;
use tokio::runtime::Runtime;

use super::TableStore;
use crate::relational::store::apply;
use crate::relational::tcp_proxy::TcpProxy;
use crate::replication::events::{EventBuilder, user};
use crate::sink_contract::{ContractItem, ContractReplica, ContractState, assert_sink_contract};

impl ContractReplica for TableStore {
    fn read<'r>(&'r self, user_id: &'r str) -> BoxFuture<'r, Option<ContractItem>> {
        async move {
            let key = json!({"timestamp": {"N": "1"}, "user_id": {"S": user_id}}).to_string();
            let sql = "select revision, name, deleted_at is not null, num_nonnulls(name, version, item) \
                from orders where key = $1";
            let row = self.client.query_opt(sql, &[&key]).await.unwrap()?;
            let (name, gone, columns): (Option<String>, bool, i32) = (row.get(1), row.get(2), row.get(3));
            assert_eq!(gone, columns == 0, "a tombstone holds nothing else");
            let state = name.map_or(ContractState::Gone, ContractState::Named);
            Some(ContractItem { revision: Revision::decode(row.get(0)).unwrap(), state })
        }
        .boxed()
    }

    fn poison(&self, user_id: &str) -> String {
        user(user_id, "1", "zero \u{0}").to_string()
    }
}

#[test]
fn the_sink_of_a_declared_table_passes_the_contract_suite() {
    let runtime = Runtime::new().unwrap();
    let columns = json!({"name": {"path": "name", "type": "text"}, "version": {"path": "version", "type": "bigint"}});
    let store = runtime.block_on(TableStore::start(&columns));
    assert_sink_contract(&runtime, &store.sink, &store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_of_any_table_are_one_round_trip() {
    let columns = json!({"name": {"path": "name", "type": "text"}, "ids": {"path": "ids", "type": "numeric[]"}});
    let store = TableStore::start(&columns).await;
    let proxy = TcpProxy::to(&store.url).await;
    let sink = super::table_sink(proxy.url(), &store.table);
    let changes = |from: u64, to: u64| {
        (from..=to).map(|n| EventBuilder::named(&format!("u{n:05}"), n, "Ada")).collect::<Vec<_>>()
    };
    assert_eq!(apply(&sink, &changes(1, 10)).await.applied, 10);
    let before = proxy.round_trips();
    assert_eq!(apply(&sink, &changes(11, 1_010)).await.applied, 1_000);
    assert_eq!(proxy.round_trips() - before, 1);
    assert_eq!(apply(&sink, &changes(11, 1_010)).await.duplicate, 1_000);
    assert_eq!(proxy.round_trips() - before, 2);
}
