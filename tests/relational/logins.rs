//! Database authentication: a password in the URL, or a secret that is read again when it is needed.

use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::Router;
use axum::body::Bytes;
use millrace_shared::clock::Clock;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::postgres::PostgresSettings;
use millrace_sinks::Sink;
use millrace_sinks::postgres::{PostgresSink, migrate};
use tokio::net::TcpListener;

use super::store::{apply, sink, soon};
use crate::postgres::server;
use crate::replication::events::EventBuilder;

const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:database";

/// The response of Secrets Manager to a request for the secret; `None`: access is denied.
type StoredSecret = Arc<Mutex<Option<String>>>;

/// Starts a Secrets Manager endpoint; also returns the requests that it has received.
async fn secrets_manager(kept: StoredSecret) -> (SdkConfig, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let respond = async move |body: Bytes| {
        seen.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
        match &*kept.lock().unwrap() {
            Some(secret) => {
                (http::StatusCode::OK, serde_json::json!({"ARN": SECRET, "SecretString": secret}).to_string())
            }
            None => (http::StatusCode::BAD_REQUEST, r#"{"__type":"AccessDeniedException"}"#.to_owned()),
        }
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(axum::routing::post(respond));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let credentials = Credentials::new("akid", "secret", None, None, "test");
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url)
        .build();
    (sdk, asked)
}

fn by_secret(url: &str, sdk: &SdkConfig) -> PostgresSink {
    let variables = [("POSTGRES_URL", url), ("POSTGRES_SECRET", SECRET)];
    let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let settings = PostgresSettings::parse("POSTGRES_URL", get).unwrap().unwrap();
    PostgresSink::new(&settings, Some(TokenSigner::new(sdk, Clock::system())), time::Duration::days(8))
}

fn secret(password: &str) -> String {
    serde_json::json!({"username": "keeper", "password": password, "engine": "postgres"}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_read_when_the_old_one_is_refused() {
    let server = server().await;
    migrate(sink(&server.url()).database(), soon()).await.unwrap();
    // The only role that must authenticate with a password.
    let role = "create role keeper login superuser password 'first'";
    server.owner("millrace", role).await.unwrap();
    let rules = "copy (values ('host all keeper 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust')) \
        to program 'cat > pg_hba.conf'";
    server.owner("millrace", rules).await.unwrap();
    server.owner("millrace", "select pg_reload_conf()").await.unwrap();

    let kept = StoredSecret::new(Mutex::new(Some(secret("first"))));
    let (sdk, asked) = secrets_manager(Arc::clone(&kept)).await;
    let sink = by_secret(&server.url(), &sdk);
    assert_eq!(apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1);
    assert_eq!(apply(&sink, &[EventBuilder::named("b", 2, "Bob")]).await.applied, 1);
    assert_eq!(asked.lock().unwrap().len(), 1, "once a connection");
    assert!(asked.lock().unwrap()[0].contains(SECRET));

    let rotated = "alter role keeper password 'second'; \
        select pg_terminate_backend(pid) from pg_stat_activity where usename = 'keeper'";
    server.owner("millrace", rotated).await.unwrap();
    let outcome = format!("{:?}", apply(&sink, &[EventBuilder::named("c", 3, "Cid")]).await);
    assert!(outcome.contains("Transient") && outcome.contains("rejects the login"), "{outcome}");
    assert!(!outcome.contains("first"), "{outcome}");
    *kept.lock().unwrap() = Some(secret("second"));
    assert_eq!(apply(&sink, &[EventBuilder::named("c", 3, "Cid")]).await.applied, 1);

    for (answered, says) in [(None, "AccessDeniedException"), (Some("second".to_owned()), "not JSON with a username")] {
        *kept.lock().unwrap() = answered;
        let message = by_secret(&server.url(), &sdk).check().await.unwrap_err().to_string();
        assert!(
            message.contains("POSTGRES_SECRET") && message.contains(says) && !message.contains("second"),
            "{message}"
        );
    }
}
