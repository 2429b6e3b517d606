//! The cache connection: its commands, and the behavior of a real server.

use std::time::Duration;

use millrace_local::cache::CacheServer;
use millrace_local::port::ReservedPort;
use millrace_shared::cache::{Cache, CacheEntry, CacheError, CacheSlot, QuotaDecision, RequestQuota};
use millrace_shared::version_fence::MinVersion;
use tempfile::TempDir;

use super::servers::{at, cache, cached_version, cluster_server, settings, time_left, url};
use crate::users_api::service::NOW;

fn entry(version: u64) -> CacheEntry {
    CacheEntry { version, expires_at: None, json: br#"{"user_id":"ada"}"#.to_vec() }
}

fn min_version(version: u64) -> MinVersion {
    MinVersion::after_write(0, version)
}

#[tokio::test]
async fn a_record_is_taken_over_nothing_and_over_a_lower_one_alone() {
    let connection = cache().await.connection().await.unwrap();
    assert_eq!(connection.get("k").await.unwrap(), CacheSlot::Miss);
    assert!(connection.put("k", &entry(7), NOW).await.unwrap());
    assert_eq!(connection.get("k").await.unwrap(), CacheSlot::Entry(entry(7)));
    assert!(!connection.put("k", &entry(6), NOW).await.unwrap());
    assert!(!connection.put("k", &entry(7), NOW).await.unwrap());
    assert!(connection.put("k", &entry(8), NOW).await.unwrap());
    assert_eq!(cached_version(&connection, "k").await, Some(8));
}

#[tokio::test]
async fn a_mark_takes_away_what_is_below_and_lets_in_what_is_not() {
    let connection = cache().await.connection().await.unwrap();
    assert!(connection.put("k", &entry(7), NOW).await.unwrap());
    connection.invalidate("k", min_version(7)).await.unwrap();
    assert_eq!(cached_version(&connection, "k").await, Some(7), "it is the very state that the marker is of");
    connection.invalidate("k", min_version(8)).await.unwrap();
    assert_eq!(connection.get("k").await.unwrap(), CacheSlot::Fenced);
    assert!(!connection.put("k", &entry(7), NOW).await.unwrap());
    connection.invalidate("k", min_version(5)).await.unwrap();
    assert!(!connection.put("k", &entry(7), NOW).await.unwrap(), "the highest stays");
    assert!(connection.put("k", &entry(8), NOW).await.unwrap());
}

#[tokio::test]
async fn versions_that_differ_by_one_differ_though_a_float_holds_neither() {
    let connection = cache().await.connection().await.unwrap();
    let version = (1 << 53) + 1;
    connection.invalidate("k", min_version(version)).await.unwrap();
    assert!(!connection.put("k", &entry(version - 1), NOW).await.unwrap());
    assert!(connection.put("k", &entry(version), NOW).await.unwrap());
}

#[tokio::test]
async fn negative_entry_is_stored_only_over_a_miss_and_for_seconds() {
    let url = url().await;
    let connection = at(&url).connection().await.unwrap();
    connection.put_negative("k").await.unwrap();
    assert_eq!(connection.get("k").await.unwrap(), CacheSlot::Missing);
    assert!((1..=5_000).contains(&time_left(&url, "k").await));
    connection.invalidate("k", min_version(1)).await.unwrap();
    connection.put_negative("k").await.unwrap();
    assert_eq!(connection.get("k").await.unwrap(), CacheSlot::Fenced, "somebody wrote meanwhile");
    assert!(connection.put("k", &entry(1), NOW).await.unwrap());
    connection.put_negative("k").await.unwrap();
    assert_eq!(cached_version(&connection, "k").await, Some(1));
}

#[tokio::test]
async fn repeated_or_lower_invalidation_restarts_the_time_to_live() {
    let url = url().await;
    let connection = at(&url).connection().await.unwrap();
    connection.invalidate("k", min_version(9)).await.unwrap();
    for again in [9, 3] {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let before = time_left(&url, "k").await;
        connection.invalidate("k", min_version(again)).await.unwrap();
        assert!(time_left(&url, "k").await > before, "{again}");
    }
}

#[tokio::test]
async fn a_record_that_ends_soon_leaves_its_floor_for_as_long_as_a_mark_would() {
    let url = url().await;
    let connection = at(&url).connection().await.unwrap();
    let ending = CacheEntry { expires_at: Some(NOW.unix_timestamp() + 2), ..entry(7) };
    assert!(connection.put("k", &ending, NOW).await.unwrap());
    assert!((55_000..=60_000).contains(&time_left(&url, "k").await));
    assert!(connection.put("j", &entry(7), NOW).await.unwrap());
    assert!((800_000..=900_000).contains(&time_left(&url, "j").await));
}

#[tokio::test]
async fn many_marks_are_one_round_trip_also_after_a_restart() {
    let mut server = CacheServer::start().await.unwrap();
    let cache = at(&server.url());
    let markers: Vec<_> = (1..=5_000).map(|n| (format!("k{n}"), min_version(n))).collect();
    let connection = cache.connection().await.unwrap();
    connection.invalidate_all(&markers).await.unwrap();
    assert_eq!(connection.get("k5000").await.unwrap(), CacheSlot::Fenced);
    server.kill();
    assert!(connection.invalidate_all(&markers).await.is_err());
    cache.discard(&connection);
    server.restart().await.unwrap();
    let connection = cache.connection().await.unwrap();
    assert_eq!(connection.get("k1").await.unwrap(), CacheSlot::Miss);
    connection.invalidate_all(&markers).await.unwrap();
    assert_eq!(connection.get("k1").await.unwrap(), CacheSlot::Fenced);
}

#[tokio::test]
async fn a_line_that_failed_stays_failed_though_the_server_is_back() {
    let mut server = CacheServer::start().await.unwrap();
    let cache = at(&server.url());
    let connection = cache.connection().await.unwrap();
    assert_eq!(connection.get("k").await.unwrap(), CacheSlot::Miss, "a reader looks, and goes to the table");
    server.restart().await.unwrap();
    assert!(connection.put("k", &entry(7), NOW).await.is_err(), "the markers since its lookup are lost");
    assert!(cache.is_open(&connection));
    cache.discard(&connection);
    assert!(!cache.is_open(&connection));
    assert!(cache.connection().await.unwrap().put("k", &entry(7), NOW).await.unwrap());
}

#[tokio::test]
async fn a_quota_is_spent_and_comes_back_with_time() {
    let connection = cache().await.connection().await.unwrap();
    let quota = RequestQuota { requests: 10, seconds: 1, burst: 3 };
    for remaining in [2, 1, 0] {
        let QuotaDecision::Allowed { remaining: left, .. } = connection.try_acquire("ada", quota).await.unwrap() else {
            panic!()
        };
        assert_eq!(left, remaining);
    }
    let QuotaDecision::Limited { next_in } = connection.try_acquire("ada", quota).await.unwrap() else {
        panic!("a fourth")
    };
    assert!(next_in <= Duration::from_millis(100) && next_in > Duration::from_millis(10), "{next_in:?}");
    assert!(
        matches!(connection.try_acquire("eve", quota).await.unwrap(), QuotaDecision::Allowed { .. }),
        "each has its own"
    );
    tokio::time::sleep(next_in).await;
    assert!(matches!(connection.try_acquire("ada", quota).await.unwrap(), QuotaDecision::Allowed { remaining: 0, .. }));
}

#[tokio::test]
async fn a_cluster_is_spoken_to_as_one() {
    let (server, _) = cluster_server().await;
    let cache = Cache::new(settings(&[("CACHE_URL", &server.url()), ("CACHE_MODE", "cluster")]), None);
    let connection = loop {
        let proved = match cache.connection().await {
            Ok(connection) => connection
                .check_writable()
                .await
                .map(|()| connection.clone())
                .inspect_err(|_| cache.discard(&connection)),
            Err(error) => Err(error),
        };
        match proved {
            Ok(connection) => break connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let key = |n: u64| format!("millrace:1:{{Users/u{n}/1}}");
    let markers: Vec<_> = (1..=500).map(|n| (key(n), min_version(n))).collect();
    connection.invalidate_all(&markers).await.unwrap();
    assert!(!connection.put(&key(7), &entry(6), NOW).await.unwrap());
    assert!(connection.put(&key(7), &entry(7), NOW).await.unwrap());
    assert_eq!(cached_version(&connection, &key(7)).await, Some(7));
    assert!(matches!(
        connection.try_acquire("ada", RequestQuota { requests: 1, seconds: 1, burst: 1 }).await.unwrap(),
        QuotaDecision::Allowed { .. }
    ));
}

#[tokio::test]
async fn cache_error_names_the_setting() {
    let check_error = async |cache: Cache| match cache.connection().await {
        Ok(connection) => connection.check_writable().await.unwrap_err(),
        Err(error) => error,
    };
    let nobody = check_error(at("redis://127.0.0.1:1")).await;
    assert!(
        matches!(&nobody, CacheError::Unavailable(reason) if reason.contains("127.0.0.1:1") && reason.contains("CACHE_URL")),
        "{nobody}"
    );

    let mut locked = CacheServer::spawn(&["--requirepass", "secret"]).unwrap();
    locked.ready(&format!("redis://:secret@127.0.0.1:{}", locked.port())).await.unwrap();
    for url in [locked.url(), format!("redis://ada:wrong@127.0.0.1:{}", locked.port())] {
        let refused = check_error(at(&url)).await;
        assert!(
            matches!(&refused, CacheError::Misconfigured(reason) if reason.contains("user and password")),
            "{refused}"
        );
        assert!(!refused.to_string().contains("wrong@"), "{refused}");
    }

    let primary = CacheServer::start().await.unwrap();
    let replica = CacheServer::spawn(&["--replicaof", "127.0.0.1", &primary.port().to_string()]).unwrap();
    let refused = loop {
        let refused = check_error(at(&replica.url())).await;
        if matches!(refused, CacheError::Misconfigured(_)) {
            break refused.to_string();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(refused.contains("set it to the primary"), "{refused}");

    let cluster = settings(&[("CACHE_URL", &primary.url()), ("CACHE_MODE", "cluster")]);
    let refused = check_error(Cache::new(cluster, None)).await;
    assert!(matches!(&refused, CacheError::Misconfigured(reason) if reason.contains("CACHE_MODE=single")), "{refused}");
}

/// Creates a certificate for this host, signed by an authority that no other client trusts.
fn certificates(folder: &TempDir, host: &str) -> Vec<u8> {
    let run = |arguments: &[&str]| {
        let made = std::process::Command::new("openssl").args(arguments).current_dir(folder.path()).output();
        let made = made.expect("openssl is not on PATH: apt-get install openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    run(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-subj",
        "/CN=authority",
    ]);
    run(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
        "-subj",
        "/CN=localhost",
    ]);
    std::fs::write(folder.path().join("names"), format!("subjectAltName=DNS:{host}\n")).unwrap();
    run(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-out",
        "server.crt",
        "-extfile",
        "names",
    ]);
    std::fs::read(folder.path().join("ca.crt")).unwrap()
}

/// Starts a server with a certificate for this host; returns also its port with TLS, and the authority.
pub(super) async fn encrypted_server(folder: &TempDir, host: &str) -> (CacheServer, ReservedPort, Vec<u8>) {
    let authority = certificates(folder, host);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let encrypted = ReservedPort::claim().unwrap();
    let port = encrypted.number().to_string();
    let files = [path("server.crt"), path("server.key"), path("ca.crt")];
    let server = CacheServer::start_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &files[0],
        "--tls-key-file",
        &files[1],
        "--tls-ca-cert-file",
        &files[2],
        "--tls-auth-clients",
        "no",
    ])
    .await
    .unwrap();
    (server, encrypted, authority)
}

#[tokio::test]
async fn an_encrypted_line_trusts_the_right_certificate_alone() {
    let folder = TempDir::new().unwrap();
    let (_server, encrypted, authority) = encrypted_server(&folder, "localhost").await;
    let port = encrypted.number();
    let of = |host: &str| settings(&[("CACHE_URL", &format!("rediss://{host}:{port}"))]);
    let trusted = Cache::with_root_certificates(of("localhost"), None, Some(authority.clone()));
    let connection = trusted.connection().await.unwrap();
    assert!(connection.put("k", &entry(7), NOW).await.unwrap());
    for (settings, roots) in [(of("localhost"), None), (of("127.0.0.1"), Some(authority))] {
        let refused = Cache::with_root_certificates(settings, None, roots).connection().await.err().unwrap();
        assert!(matches!(&refused, CacheError::Misconfigured(reason) if reason.contains("certificate")), "{refused}");
    }
}
