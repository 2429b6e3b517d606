//! Objects that are read in several range requests, and bodies that are truncated.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_archive::store::ArchiveStore;
use tokio::runtime::Handle;

use super::harness;
use crate::faults::proxy::{self, HttpFault};
use crate::maintenance::scene::{ARCHIVE, MaintenanceScene};

const KEY: &str = "some/object";
const MIB: usize = 1024 * 1024;

/// Bytes in which no two chunks are equal.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

async fn put(scene: &MaintenanceScene, length: usize) -> Vec<u8> {
    let bytes = bytes(length);
    let put = scene.s3.put_object().bucket(ARCHIVE).key(KEY).metadata("name", "value");
    put.body(bytes.clone().into()).send().await.unwrap();
    bytes
}

async fn read(store: ArchiveStore) -> io::Result<Vec<u8>> {
    let runtime = Handle::current();
    let reading = tokio::task::spawn_blocking(move || {
        let mut object = store.blocking_open(KEY, &runtime).map_err(io::Error::other)?.unwrap();
        assert_eq!(object.metadata()["name"], "value");
        let mut bytes = Vec::new();
        object.read_to_end(&mut bytes).map(|_| bytes)
    });
    reading.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_any_size_is_read_piece_by_piece_as_it_lies() {
    let scene = MaintenanceScene::start().await;
    let store = ArchiveStore::new(scene.s3.clone(), ARCHIVE.to_owned());
    for length in [1, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB / 2] {
        let bytes = put(&scene, length).await;
        assert!(read(store.clone()).await.unwrap() == bytes, "{length}");
    }
    scene.s3.put_object().bucket(ARCHIVE).key(KEY).metadata("name", "value").send().await.unwrap();
    assert_eq!(read(store.clone()).await.unwrap(), [0_u8; 0], "of nothing, too");
    scene.s3.delete_object().bucket(ARCHIVE).key(KEY).send().await.unwrap();
    assert!(store.open(KEY).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_range_read_is_retried_and_a_lasting_one_is_an_error() {
    let scene = MaintenanceScene::start().await;
    let bytes = put(&scene, 5 * MIB / 2).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let plan = move |_: &proxy::ProxiedCall<'_>| {
        if counted.fetch_add(1, Ordering::SeqCst).is_multiple_of(3) {
            HttpFault::None
        } else {
            HttpFault::HalfAResponse
        }
    };
    let url = proxy::before(scene.stack.s3_url(), plan).await;
    let store = ArchiveStore::new(harness::client(&url), ARCHIVE.to_owned());
    assert!(read(store).await.unwrap() == bytes);
    assert_eq!(calls.load(Ordering::SeqCst), 7, "three pieces, the last two at their third attempt");

    let url = proxy::before(scene.stack.s3_url(), |_| HttpFault::HalfAResponse).await;
    let store = ArchiveStore::new(harness::client(&url), ARCHIVE.to_owned());
    let message = store.open(KEY).await.err().unwrap().to_string();
    assert!(message.contains("cannot read some/object"), "{message}");
}
