//! Logins with IAM tokens over TLS. The server has the certificate of an `ElastiCache` endpoint, and the user's passwords are
//! the tokens that `ElastiCache` accepts in the next minute.

use std::net::SocketAddr;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use millrace_local::cache::CacheServer;
use millrace_local::port::ReservedPort;
use millrace_shared::cache::{Cache, CacheError};
use millrace_shared::clock::Clock;
use millrace_shared::iam_token::{AuthTarget, TokenSigner};
use tempfile::TempDir;

use super::connection_faults::encrypted_server;
use super::servers::settings;

const HOST: &str = "master.users.abc123.euw1.cache.amazonaws.com";
const USER: &str = "millrace";

/// The AWS configuration of a function.
fn sdk() -> SdkConfig {
    let credentials = Credentials::new("akid", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// A cache client with the login of a function, which trusts these authorities and connects to this port.
fn client(roots: Option<Vec<u8>>, port: u16) -> Cache {
    let url = format!("rediss://{USER}@{HOST}:6379");
    let settings = settings(&[("CACHE_URL", &url), ("CACHE_AUTH", "iam")]);
    let signer = TokenSigner::new(&sdk(), Clock::system());
    Cache::at_address(settings, Some(signer), roots, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A server that the functions reach as an encrypted replication group.
struct TokenServer {
    server: CacheServer,
    encrypted: ReservedPort,
    authority: Vec<u8>,
    _folder: TempDir,
}

impl TokenServer {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let (server, encrypted, authority) = encrypted_server(&folder, HOST).await;
        Self { server, encrypted, authority, _folder: folder }
    }

    fn cache(&self) -> Cache {
        client(Some(self.authority.clone()), self.encrypted.number())
    }

    async fn command(&self, arguments: &[String]) {
        let client = redis::Client::open(self.server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(&arguments[0]);
        command.arg(&arguments[1..]);
        command.query_async::<()>(&mut connection).await.unwrap();
    }

    /// Lets the server accept only the tokens that are signed in the minute that begins after this number of seconds, and
    /// ends the connections of the user.
    async fn accept_tokens_of(&self, later: i64) {
        let now = Clock::system().now();
        let mut rule: Vec<String> = ["ACL", "SETUSER", USER, "reset", "on", "~*", "+@all"].map(str::to_owned).into();
        for second in later..later + 60 {
            let signer = TokenSigner::new(&sdk(), Clock::fixed(now + time::Duration::seconds(second)));
            let target = AuthTarget::ElastiCache { cache: "users", serverless: false };
            rule.push(format!(">{}", signer.sign(target, USER).await.unwrap().secret()));
        }
        self.command(&rule).await;
        self.command(&["CLIENT", "KILL", "USER", USER].map(str::to_owned)).await;
    }
}

fn misconfigured(error: CacheError) -> String {
    match error {
        CacheError::Misconfigured(reason) => reason,
        CacheError::Unavailable(reason) => panic!("unavailable: {reason}"),
    }
}

#[tokio::test]
async fn an_expired_token_is_renewed_at_the_next_connection() {
    let server = TokenServer::start().await;
    server.accept_tokens_of(0).await;
    let cache = server.cache();
    let first = cache.connection().await.unwrap();
    first.get("k").await.unwrap();

    // The tokens up to now are refused from here on.
    server.accept_tokens_of(1).await;
    first.get("k").await.unwrap_err();
    cache.discard(&first);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    cache.connection().await.unwrap().get("k").await.unwrap();
}

#[tokio::test]
async fn a_rejected_token_is_reported_with_the_grants_that_it_needs() {
    let server = TokenServer::start().await;
    server.accept_tokens_of(-3_600).await;
    let message = misconfigured(server.cache().connection().await.err().unwrap());
    for part in [HOST, "CACHE_AUTH=iam", "CACHE_URL", "elasticache:Connect"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(!message.contains("X-Amz"), "{message}");
}

#[tokio::test]
async fn a_token_is_not_sent_to_a_server_that_does_not_prove_its_name() {
    let server = TokenServer::start().await;
    server.accept_tokens_of(0).await;
    let message = misconfigured(client(None, server.encrypted.number()).connection().await.err().unwrap());
    assert!(message.contains("its certificate is not trusted"), "{message}");
    // The port without TLS: the server waits for the end of a command, or does not understand the handshake.
    let refused = client(Some(server.authority.clone()), server.server.port()).connection().await.err().unwrap();
    assert!(matches!(&refused, CacheError::Unavailable(reason) if reason.contains("CACHE_URL")), "{refused}");
}
