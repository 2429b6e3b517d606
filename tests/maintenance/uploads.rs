//! Timeouts of uploads: a large object gets time in proportion to its size.

use std::time::Duration;

use aws_sdk_s3::config::timeout::TimeoutConfig;
use millrace_archive::store::ArchiveStore;
use millrace_shared::hash::sha256;

use super::scene::{ARCHIVE, MaintenanceScene};
use crate::faults::proxy::{self, HttpFault, ProxiedCall};

/// A slow network, on which a large object takes longer than the client waits for a small one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_upload_has_the_time_that_its_size_takes() {
    let scene = MaintenanceScene::start().await;
    let slow = |call: &ProxiedCall<'_>| {
        if call.method == "PUT" && call.path.contains("/large") {
            return HttpFault::Slow(Duration::from_millis(700));
        }
        HttpFault::None
    };
    let url = proxy::before(scene.stack.s3_url(), slow).await;
    let limit = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(300)).build();
    let config = millrace_local::clients::s3(&url).config().to_builder().timeout_config(limit).build();
    let store = ArchiveStore::new(aws_sdk_s3::Client::from_conf(config), ARCHIVE.to_owned());
    let put = async |key: &str, bytes: Vec<u8>| {
        let sha256 = sha256(&bytes);
        store.put(key, bytes, sha256, []).await
    };
    put("large/object", vec![7; 5 * 1024 * 1024]).await.unwrap();
    assert!(put("large/small", vec![7; 1024]).await.is_err(), "a small one is tried again instead");
}
