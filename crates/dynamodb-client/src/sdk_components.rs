//! The configuration of an SDK client, as the SDK itself resolves it: [`SdkComponents`].
//!
//! A client has no getters for its credentials or its defaults. Its interceptors receive all of them, so an operation is
//! started with an interceptor that keeps them and ends the operation before anything is sent. Credentials, Region,
//! endpoint, retries, timeouts and the HTTP client are therefore those of the client, wherever they were set.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::endpoint::Params;
use aws_sdk_dynamodb::config::{ConfigBag, Region, SharedHttpClient};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
use aws_smithy_runtime_api::client::endpoint::{EndpointResolverParams, ResolveEndpoint as _};
use aws_smithy_runtime_api::client::http::{HttpClient as _, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::identity::{
    Identity, ResolveCachedIdentity as _, ResolveIdentity as _, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::{GetIdentityResolver as _, RuntimeComponents};
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::endpoint::Endpoint;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

/// The authentication scheme whose credentials sign the requests.
const SIGV4: AuthSchemeId = AuthSchemeId::new("sigv4");

/// The components of an SDK client, for one table.
#[derive(Debug)]
pub(crate) struct SdkComponents {
    pub(crate) retries: RetryConfig,
    pub(crate) timeouts: TimeoutConfig,
    pub(crate) region: Option<Region>,
    runtime: RuntimeComponents,
    identities: SharedIdentityResolver,
    /// The parameters of the endpoint, without those of the credentials.
    endpoint: Params,
    /// The configuration that providers of credentials read.
    bag: ConfigBag,
    /// The HTTP client that was set explicitly.
    http_client: Option<SharedHttpClient>,
}

impl SdkComponents {
    /// Takes the components of `client`, for requests to `table`.
    pub(crate) async fn from_client(client: &Client, table: &str) -> Result<Self, BoxError> {
        let kept = Arc::new(Mutex::new(None));
        let keeper = KeepComponents(Arc::clone(&kept));
        // The operation always fails: the interceptor ends it.
        let ended = Box::pin(client.put_item().table_name(table).customize().interceptor(keeper).send()).await;
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(KeptComponents { runtime, endpoint, region, retries, timeouts }) = kept else {
            return Err(ended.err().map_or_else(|| "the SDK started no operation".into(), BoxError::from));
        };
        let identities = runtime.identity_resolver(SIGV4).ok_or("no AWS credentials are configured")?;
        let mut layer = Layer::new("TableClient");
        layer.store_put(retries.clone());
        layer.store_put(timeouts.clone());
        let http_client = client.config().http_client();
        let bag = ConfigBag::of_layers([layer]);
        Ok(Self { retries, timeouts, region, runtime, identities, endpoint, bag, http_client })
    }

    /// Returns the local time.
    pub(crate) fn now(&self) -> SystemTime {
        self.runtime.time_source().unwrap_or_default().now()
    }

    /// Returns the credentials, from the SDK's cache, which refreshes them before they expire.
    pub(crate) async fn identity(&self) -> Result<Identity, BoxError> {
        let cache = self.runtime.identity_cache();
        cache.resolve_cached_identity(self.identities.clone(), &self.runtime, &self.bag).await
    }

    /// Requests new credentials, although those in the cache have not expired.
    pub(crate) async fn new_identity(&self) -> Result<Identity, BoxError> {
        self.identities.resolve_identity(&self.runtime, &self.bag).await
    }

    /// Returns the endpoint for requests with these credentials: it may contain their account ID.
    pub(crate) async fn endpoint(&self, identity: &Identity) -> Result<Endpoint, BoxError> {
        let mut params = EndpointResolverParams::new(self.endpoint.clone());
        params.set_property(identity.clone());
        let resolver = self.runtime.endpoint_resolver();
        resolver.finalize_params(&mut params)?;
        resolver.resolve_endpoint(&params).await
    }

    /// Returns a connector of the HTTP client that was set explicitly, if any.
    pub(crate) fn explicit_connector(&self) -> Option<SharedHttpConnector> {
        self.http_client.as_ref().map(|client| self.connector_of(client))
    }

    /// Returns a connector of the SDK's HTTP client.
    pub(crate) fn connector(&self) -> Option<SharedHttpConnector> {
        self.runtime.http_client().map(|client| self.connector_of(&client))
    }

    fn connector_of(&self, client: &SharedHttpClient) -> SharedHttpConnector {
        let mut settings = HttpConnectorSettings::builder();
        settings.set_connect_timeout(self.timeouts.connect_timeout());
        settings.set_read_timeout(self.timeouts.read_timeout());
        client.http_connector(&settings.build(), &self.runtime)
    }
}

/// Returns the credentials of an identity.
pub(crate) fn credentials(identity: &Identity) -> Result<&Credentials, BoxError> {
    identity.data::<Credentials>().ok_or_else(|| "the identity of the client is not AWS credentials".into())
}

/// Returns the time until which an identity is used without reading the cache again: 1 second, which is less than the
/// SDK's refresh margin before an expiration.
pub(crate) fn usable_until(now: SystemTime) -> SystemTime {
    now + Duration::from_secs(1)
}

/// The components that [`KeepComponents`] stores.
#[derive(Debug)]
struct KeptComponents {
    runtime: RuntimeComponents,
    endpoint: Params,
    region: Option<Region>,
    retries: RetryConfig,
    timeouts: TimeoutConfig,
}

/// Keeps the components of the operation, and ends it.
#[derive(Debug)]
struct KeepComponents(Arc<Mutex<Option<KeptComponents>>>);

impl Intercept for KeepComponents {
    fn name(&self) -> &'static str {
        "KeepComponents"
    }

    fn modify_before_retry_loop(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        runtime: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let endpoint = bag.load::<EndpointResolverParams>().and_then(|params| params.get::<Params>());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(KeptComponents {
            runtime: runtime.clone(),
            endpoint: endpoint.ok_or("the SDK has no endpoint parameters")?.clone(),
            region: bag.load::<Region>().cloned(),
            retries: bag.load::<RetryConfig>().cloned().unwrap_or_else(RetryConfig::disabled),
            timeouts: bag.load::<TimeoutConfig>().cloned().unwrap_or_else(TimeoutConfig::disabled),
        });
        Err("the components of the client are known".into())
    }
}
