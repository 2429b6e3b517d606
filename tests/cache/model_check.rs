//! The runs of [`super::cache_model`] on a real server: the cache scripts must return the same results as the model.

use millrace_shared::cache::{CacheConnection, CacheEntry};
use redis::aio::MultiplexedConnection;

use super::cache_model::{ModelMutation, StepOutcome, live};
use super::servers::{at, cached_version, url};
use crate::users_api::service::NOW;

const LIVES: u64 = 200;

/// Advances the time of a key: shortens its remaining TTL.
async fn pass(server: &mut MultiplexedConnection, key: &str, seconds: u64) {
    let left: i64 = redis::cmd("PTTL").arg(key).query_async(server).await.unwrap();
    let left = left - i64::try_from(seconds).unwrap() * 1_000;
    redis::cmd("PEXPIRE").arg(key).arg(left.max(0)).exec_async(server).await.unwrap();
}

async fn follow(connection: &CacheConnection, server: &mut MultiplexedConnection, key: &str, done: &[StepOutcome]) {
    for (step, one) in done.iter().enumerate() {
        match *one {
            StepOutcome::Look(version) => {
                assert_eq!(cached_version(connection, key).await, version, "{key}, step {step}: {done:#?}");
            }
            StepOutcome::Fill { version, ends_in } => {
                let expires_at = ends_in.map(|seconds| NOW.unix_timestamp() + i64::try_from(seconds).unwrap());
                connection
                    .put(key, &CacheEntry { version, expires_at, json: b"{}".to_vec() }, NOW)
                    .await
                    .map(drop)
                    .unwrap();
            }
            StepOutcome::FillMissing => connection.put_negative(key).await.unwrap(),
            StepOutcome::Marker(min_version) => connection.invalidate(key, min_version).await.unwrap(),
            StepOutcome::Pass(seconds) => pass(server, key, seconds).await,
        }
    }
}

#[tokio::test]
async fn server_scripts_match_the_cache_model() {
    let url = url().await;
    let connection = at(&url).connection().await.unwrap();
    let mut server = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    for seed in 0..LIVES {
        let (done, lived) = live(seed, ModelMutation::None);
        assert_eq!(lived, Ok(()));
        follow(&connection, &mut server, &format!("life-{seed}"), &done).await;
    }
}
