//! The cache in front of the Users table: records by key, and invalidation markers with the minimum version that an
//! entry must have to be served.
//!
//! The cache contains nothing that the table does not contain, and it is never authoritative: if it does not respond,
//! the caller reads the table. [`crate::version_fence`] defines the rules that keep it from serving outdated records;
//! `entry` defines the values under a key, and `connection` the rules for replacing them.
//!
//! A [`Cache`] connects when a [`CacheConnection`] is first requested, and again after a connection has failed. **A
//! record that was looked up on one connection is written back on the same connection only**: a server that was
//! restarted, or one that replaced it, has lost its invalidation markers, and a record that was read before they were
//! set must not reach it. A call that is dropped before its response has arrived discards its connection: the caller
//! timed out, and the connection may be dead.

mod connection;
mod entry;
mod settings;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::io::AsyncDNSResolver;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisFuture, TlsCertificates};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use connection::CacheTransport;
pub use connection::{CacheConnection, QuotaDecision, RequestQuota, key};
pub use entry::{CacheEntry, CacheSlot};
pub use settings::{CacheAuth, CacheMode, CacheSettings};

use crate::iam_token::TokenSigner;

/// The time limit for opening a connection, including TLS and login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The time limit for a response, however long its caller would wait. Responses normally take less than a tenth of it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long sent data may stay unacknowledged, and an idle connection without a sign of life, before the connection is
/// closed. After a failover, the connections to the failed node are not closed from its side: without these limits they
/// would stay open for 15 minutes.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// `ElastiCache` closes a connection twelve hours after a login with a token:
/// <https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth-iam.html>.
const IAM_CONNECTION_MAX_AGE: Duration = Duration::from_hours(11);

const LOGIN: &str = "correct its user and password, or set CACHE_AUTH=iam";
const IAM_LOGIN: &str =
    "CACHE_AUTH=iam needs a user in CACHE_URL with IAM authentication, and elasticache:Connect in the function's role";

/// A request that the cache did not fulfil. The messages contain no password.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// The settings are wrong: a retry does not help.
    #[error("{0}")]
    Misconfigured(String),
    /// The cache is unreachable, overloaded or being replaced.
    #[error("{0}")]
    Unavailable(String),
}

impl CacheError {
    /// Classifies an error of the client library, and names the setting to correct.
    fn from_redis(error: &redis::RedisError, settings: &CacheSettings) -> Self {
        let endpoint = settings.endpoint();
        let text = error.to_string();
        let code = error.code().unwrap_or_default();
        let login = if settings.login == CacheAuth::Iam { IAM_LOGIN } else { LOGIN };
        let fix = match code {
            "WRONGPASS" | "NOAUTH" | "NOPERM" => login,
            _ if error.kind() == redis::ErrorKind::AuthenticationFailed => login,
            "READONLY" => "CACHE_URL is a replica: set it to the primary endpoint",
            "MOVED" | "ASK" | "CROSSSLOT" => "it is a cluster: set CACHE_MODE=cluster",
            _ if text.contains("cluster support disabled") => "it is not a cluster: set CACHE_MODE=single",
            _ if text.to_ascii_lowercase().contains("certificate") => {
                "its certificate is not trusted: set CACHE_URL to a host name in the certificate"
            }
            _ if error.is_io_error() || error.is_connection_refusal() => {
                return Self::Unavailable(format!(
                    "the cache at {endpoint} is unreachable ({text}): check CACHE_URL and the network"
                ));
            }
            _ => return Self::Unavailable(format!("the cache at {endpoint} failed: {text}")),
        };
        Self::Misconfigured(format!("the cache at {endpoint} rejected the request ({text}): {fix}"))
    }
}

/// A cache client. Clones share the connection.
#[derive(Clone)]
pub struct Cache(Arc<CacheInner>);

struct CacheInner {
    settings: CacheSettings,
    signer: Option<TokenSigner>,
    roots: Option<Vec<u8>>,
    /// The address to connect to instead of the one that the host name resolves to.
    address: Option<SocketAddr>,
    open: Mutex<Option<CacheConnection>>,
    /// Serializes connecting: one task connects, and the others wait for it. The value is the number of the last
    /// connection.
    gate: Arc<AsyncMutex<u64>>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cache").field(&self.0.settings.endpoint()).finish()
    }
}

impl Cache {
    /// Creates a client for the cache with these settings; `signer` signs the tokens for a login with IAM. Does not
    /// connect.
    #[must_use]
    pub fn new(settings: CacheSettings, signer: Option<TokenSigner>) -> Self {
        Self::with_root_certificates(settings, signer, None)
    }

    /// Same as [`Cache::new`], but trusts these certificate authorities (PEM) instead of the public ones.
    #[must_use]
    pub fn with_root_certificates(
        settings: CacheSettings,
        signer: Option<TokenSigner>,
        roots: Option<Vec<u8>>,
    ) -> Self {
        Self::build(settings, signer, roots, None)
    }

    /// Same as [`Cache::with_root_certificates`], but connects to this address, whatever the host name resolves to. Only
    /// for [`CacheMode::Single`].
    #[must_use]
    pub fn at_address(
        settings: CacheSettings,
        signer: Option<TokenSigner>,
        roots: Option<Vec<u8>>,
        address: SocketAddr,
    ) -> Self {
        Self::build(settings, signer, roots, Some(address))
    }

    fn build(
        settings: CacheSettings,
        signer: Option<TokenSigner>,
        roots: Option<Vec<u8>>,
        address: Option<SocketAddr>,
    ) -> Self {
        let open = Mutex::new(None);
        Self(Arc::new(CacheInner { settings, signer, roots, address, open, gate: Arc::new(AsyncMutex::new(0)) }))
    }

    /// Returns host and port, without the password.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.0.settings.endpoint()
    }

    /// Returns the open connection, or opens a new one. A caller that stops waiting does not cancel the connection
    /// attempt: later callers use its result.
    ///
    /// # Errors
    /// [`CacheError`]
    pub async fn connection(&self) -> Result<CacheConnection, CacheError> {
        if let Some(connection) = self.open_connection() {
            return Ok(connection);
        }
        let mut number = Arc::clone(&self.0.gate).lock_owned().await;
        if let Some(connection) = self.open_connection() {
            return Ok(connection);
        }
        let cache = self.clone();
        let connecting = tokio::spawn(async move {
            *number += 1;
            let connected = cache.connect().await?;
            let connection = CacheConnection::new(connected, *number, Instant::now(), Arc::downgrade(&cache.0));
            *cache.0.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
            Ok(connection)
        });
        connecting.await.unwrap_or_else(|_| Err(CacheError::Unavailable("connecting was cancelled".to_owned())))
    }

    fn open_connection(&self) -> Option<CacheConnection> {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        open.filter(|connection| {
            self.0.settings.login == CacheAuth::Password || connection.since.elapsed() < IAM_CONNECTION_MAX_AGE
        })
    }

    /// Discards a connection that has failed: the next call to [`Cache::connection`] opens a new one.
    pub fn discard(&self, connection: &CacheConnection) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|open| open.number == connection.number) {
            *open = None;
        }
    }

    /// Returns whether this connection has been neither discarded nor replaced since it was returned.
    #[must_use]
    pub fn is_open(&self, connection: &CacheConnection) -> bool {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().is_some_and(|open| open.number == connection.number)
    }

    async fn connect(&self) -> Result<CacheTransport, CacheError> {
        let connecting = async {
            let info = self.login(self.0.settings.info()?).await?;
            match self.0.settings.mode {
                CacheMode::Single => self.connect_single(info).await.map(CacheTransport::Single),
                CacheMode::Cluster => {
                    self.connect_cluster(info).await.map(|link| CacheTransport::Cluster(Box::new(link)))
                }
            }
        };
        let late = |_| {
            Err(CacheError::Unavailable(format!(
                "the cache at {} does not respond{}: check CACHE_URL and the cache's security group",
                self.endpoint(),
                if self.0.settings.is_encrypted() { ", or has no encryption in transit" } else { "" }
            )))
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(late)
    }

    async fn login(&self, info: ConnectionInfo) -> Result<ConnectionInfo, CacheError> {
        if self.0.settings.login == CacheAuth::Password {
            return Ok(info);
        }
        let refused = |reason: String| {
            CacheError::Misconfigured(format!("cannot log in to the cache at {}: {reason}", self.endpoint()))
        };
        let door = self.0.settings.iam_cache().ok_or_else(|| {
            refused("CACHE_AUTH=iam needs CACHE_URL to be the ElastiCache endpoint, which names the cache".to_owned())
        })?;
        let signer =
            self.0.signer.as_ref().ok_or_else(|| refused("CACHE_AUTH=iam needs AWS credentials".to_owned()))?;
        let user = self.0.settings.user().unwrap_or_default();
        let token = signer.sign(door.auth_target(), &user).await.map_err(|error| refused(error.to_string()))?;
        let login = info.redis_settings().clone().set_password(token.secret());
        Ok(info.set_redis_settings(login))
    }

    async fn connect_single(&self, info: ConnectionInfo) -> Result<MultiplexedConnection, CacheError> {
        let refused = |error: redis::RedisError| CacheError::from_redis(&error, &self.0.settings);
        let info = info.set_tcp_settings(tcp_settings());
        let client = match self.certificates() {
            Some(certificates) => Client::build_with_tls(info, certificates),
            None => Client::open(info),
        };
        // `connect` sets the time limit for connecting.
        let mut config =
            AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT)).set_connection_timeout(None);
        if let Some(address) = self.0.address {
            config = config.set_dns_resolver(FixedAddress(address));
        }
        client.map_err(refused)?.get_multiplexed_async_connection_with_config(&config).await.map_err(refused)
    }

    async fn connect_cluster(
        &self,
        info: ConnectionInfo,
    ) -> Result<redis::cluster_async::ClusterConnection, CacheError> {
        let refused = |error: redis::RedisError| CacheError::from_redis(&error, &self.0.settings);
        let certificates = self.certificates();
        // A failed call must not be retried invisibly to the caller: a retry could use another connection, which the
        // module's rule about write-backs forbids.
        let mut builder = ClusterClientBuilder::new([info]).retries(0).connection_timeout(CONNECT_TIMEOUT);
        builder = builder.response_timeout(RESPONSE_TIMEOUT).tcp_settings(tcp_settings());
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        builder.build().map_err(refused)?.get_async_connection().await.map_err(refused)
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        let roots = self.0.roots.clone().filter(|_| self.0.settings.is_encrypted())?;
        Some(TlsCertificates { client_tls: None, root_cert: Some(roots) })
    }
}

/// Resolves every host name to one address.
struct FixedAddress(SocketAddr);

impl AsyncDNSResolver for FixedAddress {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        _: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let addresses: Box<dyn Iterator<Item = SocketAddr> + Send> = Box::new(std::iter::once(self.0));
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

/// Returns the TCP settings that close a dead connection automatically.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(TCP_USER_TIMEOUT).with_interval(KEEPALIVE_INTERVAL);
    let settings = TcpSettings::default().set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(TCP_USER_TIMEOUT);
    settings
}

impl CacheSettings {
    fn info(&self) -> Result<ConnectionInfo, CacheError> {
        self.url.as_str().into_connection_info().map_err(|error| CacheError::from_redis(&error, self))
    }
}
