//! Logins with IAM tokens over TLS. The server of the test asks for a password as RDS does, in clear text within TLS, and
//! leaves the check to an LDAP server, which accepts what RDS accepts: a token that is signed with known credentials for
//! this endpoint and this user, and is not older than 15 minutes.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use millrace_local::postgres::PostgresServer;
use millrace_shared::clock::Clock;
use millrace_shared::iam_token::{AuthTarget, TOKEN_TTL, TokenSigner};
use millrace_shared::postgres::PostgresSettings;
use millrace_sinks::Sink as _;
use millrace_sinks::postgres::{PostgresSink, migrate};
use tempfile::TempDir;
use time::PrimitiveDateTime;
use time::macros::format_description;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::startup_checks::encrypt;
use super::store::{apply, sink, soon};
use crate::postgres::server;
use crate::replication::events::EventBuilder;

const USER: &str = "app";

/// The AWS configuration of a function.
fn sdk(secret_key: &str) -> SdkConfig {
    let credentials = Credentials::new("akid", secret_key, None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// An LDAP server that checks tokens: simple binds as `uid=<user>`.
#[derive(Clone)]
struct TokenCheck {
    /// The port of the database.
    port: u16,
    /// How many seconds its clock is ahead.
    ahead: Arc<AtomicI64>,
    /// The tokens that it was asked about.
    seen: Arc<Mutex<Vec<String>>>,
}

/// The first element of data in the basic encoding rules: its tag, its content, and the data behind it. `None` if it is
/// not complete.
fn element(data: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = data.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

impl TokenCheck {
    async fn start(port: u16) -> (Self, u16) {
        let check = Self { port, ahead: Arc::default(), seen: Arc::default() };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let serving = check.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        (check, own)
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut received = Vec::new();
        while stream.read_buf(&mut received).await.is_ok_and(|read| read > 0) {
            let Some((_, message, _)) = element(&received) else { continue };
            let (_, id, operation) = element(message).unwrap();
            let (tag, bind, _) = element(operation).unwrap();
            // Any other operation ends the connection.
            if tag != 0x60 {
                return;
            }
            let (_, _version, bind) = element(bind).unwrap();
            let (_, name, bind) = element(bind).unwrap();
            let (_, password, _) = element(bind).unwrap();
            let is_valid = self.accepts(name, String::from_utf8(password.to_vec()).unwrap()).await;
            // The result code is 0, or 49 for invalid credentials.
            let mut response = vec![0x02, u8::try_from(id.len()).unwrap()];
            response.extend(id);
            response.extend([0x61, 7, 0x0a, 1, if is_valid { 0 } else { 49 }, 0x04, 0, 0x04, 0]);
            response.splice(0..0, [0x30, u8::try_from(response.len()).unwrap()]);
            stream.write_all(&response).await.unwrap();
            received.clear();
        }
    }

    async fn accepts(&self, name: &[u8], token: String) -> bool {
        self.seen.lock().unwrap().push(token.clone());
        let form = format_description!("[year][month][day]T[hour][minute][second]Z");
        let signed_at = token.split('&').find_map(|part| part.strip_prefix("X-Amz-Date="));
        let Some(Ok(signed_at)) = signed_at.map(|at| PrimitiveDateTime::parse(at, form)) else { return false };
        let signed_at = signed_at.assume_utc();
        let ahead = time::Duration::seconds(self.ahead.load(Ordering::Relaxed));
        let age = Clock::system().now() + ahead - signed_at;
        let signer = TokenSigner::new(&sdk("known"), Clock::fixed(signed_at));
        let expected = signer.sign(AuthTarget::Rds { host: "localhost", port: self.port }, USER).await.unwrap();
        name == format!("uid={USER}").as_bytes() && age <= TOKEN_TTL && token == expected.secret()
    }

    fn tokens(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// A server whose user logs in with a token over TLS, and whose owner needs no password.
async fn server_with_tokens(folder: &TempDir) -> (PostgresServer, TokenCheck, String) {
    let server = server().await;
    let authority = encrypt(&server, folder.path()).await;
    migrate(sink(&server.url()).database(), soon()).await.unwrap();
    let port = server.url().rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap();
    let (check, own) = TokenCheck::start(port).await;
    server.owner("millrace", &format!("create role {USER} login superuser")).await.unwrap();
    let rules = format!(
        "copy (values \
            ('hostssl all {USER} 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport={own} ldapprefix=\"uid=\"'), \
            ('host all {USER} 127.0.0.1/32 reject'), \
            ('host all all 127.0.0.1/32 trust')) to program 'cat > pg_hba.conf'"
    );
    server.owner("millrace", &rules).await.unwrap();
    server.owner("millrace", "select pg_reload_conf()").await.unwrap();
    let url = format!("postgres://{USER}@localhost:{port}/millrace?sslrootcert={authority}");
    (server, check, url)
}

fn by_token(url: &str, secret_key: &str) -> PostgresSink {
    let variables = [("POSTGRES_URL", url), ("POSTGRES_AUTH", "iam")];
    let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let settings = PostgresSettings::parse("POSTGRES_URL", get).unwrap().unwrap();
    PostgresSink::new(&settings, Some(TokenSigner::new(&sdk(secret_key), Clock::system())), time::Duration::days(8))
}

async fn end_sessions(server: &PostgresServer) {
    let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{USER}'");
    server.owner("millrace", &end).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_renewed_at_the_next_connection() {
    let folder = TempDir::new().unwrap();
    let (server, check, url) = server_with_tokens(&folder).await;
    let sink = by_token(&url, "known");
    assert_eq!(apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1);
    let first = check.tokens();
    assert!(matches!(&first[..], [token] if token.contains("X-Amz-Expires=900")), "{first:?}");

    // After 20 minutes: the connection outlives its token, and that token opens no other one.
    check.ahead.store(1_200, Ordering::Relaxed);
    assert_eq!(apply(&sink, &[EventBuilder::named("b", 2, "Bob")]).await.applied, 1);
    assert_eq!(check.tokens().len(), 1, "once a connection");
    assert!(!check.accepts(b"uid=app", first[0].clone()).await, "the token has expired");
    check.ahead.store(0, Ordering::Relaxed);
    assert!(check.accepts(b"uid=app", first[0].clone()).await, "it was valid before");

    // A token has the second in which it was signed.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    end_sessions(&server).await;
    assert_eq!(apply(&sink, &[EventBuilder::named("c", 3, "Cid")]).await.applied, 1);
    let renewed = check.tokens().pop().unwrap();
    assert_ne!(renewed, first[0], "the connection is opened with a new token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_token_is_reported_with_the_grants_that_it_needs() {
    let folder = TempDir::new().unwrap();
    let (server, check, url) = server_with_tokens(&folder).await;
    let stranger = by_token(&url, "unknown");
    let error_text = stranger.check().await.unwrap_err().to_string();
    for part in ["POSTGRES_URL", "rejects the login of app", "POSTGRES_AUTH=iam", "rds_iam", "rds-db:connect"] {
        assert!(error_text.contains(part), "{part} in {error_text}");
    }
    assert!(!error_text.contains("X-Amz"), "{error_text}");

    // A clock that is wrong by more than 15 minutes signs tokens that have expired.
    let sink = by_token(&url, "known");
    check.ahead.store(1_200, Ordering::Relaxed);
    let outcome = format!("{:?}", apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await);
    assert!(outcome.contains("Transient") && outcome.contains("rejects the login of app"), "{outcome}");
    check.ahead.store(0, Ordering::Relaxed);
    assert_eq!(apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_sent_to_a_server_that_does_not_prove_its_name() {
    let folder = TempDir::new().unwrap();
    let (server, check, url) = server_with_tokens(&folder).await;
    let (public, _) = url.split_once('?').unwrap();
    let error_text = by_token(&format!("{public}?sslmode=verify-full"), "known").check().await.unwrap_err().to_string();
    assert!(
        error_text.contains("certificate that is not trusted") && error_text.contains("sslrootcert="),
        "{error_text}"
    );
    let error_text = by_token(&format!("{public}?sslmode=disable"), "known").check().await.unwrap_err().to_string();
    assert!(error_text.contains("rejects the login of app") && error_text.contains("no encryption"), "{error_text}");
    server.owner("postgres", "alter system set ssl = off").await.unwrap();
    server.owner("postgres", "select pg_reload_conf()").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error_text = by_token(&url, "known").check().await.unwrap_err().to_string();
    assert!(error_text.contains("does not support TLS"), "{error_text}");
    assert_eq!(check.tokens(), [""; 0], "no token was sent");
}
