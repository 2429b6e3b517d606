//! The properties that every sink has.

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_shared::revision::Revision;
use tokio::runtime::Runtime;

use super::store::{RelationalStore, is_key};
use crate::replication::events::user;
use crate::sink_contract::{ContractItem, ContractReplica, ContractState, assert_sink_contract};

impl ContractReplica for RelationalStore {
    fn read<'r>(&'r self, user_id: &'r str) -> BoxFuture<'r, Option<ContractItem>> {
        async move {
            let sql = format!(
                "select revision, name, deleted_at is not null, num_nonnulls(name, name_folded, email, email_domain, status, \
                 attributes, expires_at, version, created_at, updated_at, item) from users where {}",
                is_key(user_id)
            );
            let row = self.client.query_opt(&sql, &[]).await.unwrap()?;
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
fn the_postgres_sink_passes_the_contract_suite() {
    let runtime = Runtime::new().unwrap();
    let store = runtime.block_on(RelationalStore::start());
    assert_sink_contract(&runtime, &store.sink, &store);
}

#[test]
fn a_runtime_of_one_thread_passes_the_contract_suite() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(RelationalStore::start());
    assert_sink_contract(&runtime, &store.sink, &store);
}
