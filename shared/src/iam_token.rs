//! Passwords that need no storage: a database with IAM authentication accepts a signed request as a password.
//! [`TokenSigner`]
//!
//! The token is the URL of a request that is never sent, signed locally with the function's own credentials, so it
//! needs no network call. It opens connections for the duration of [`TOKEN_TTL`]; an open connection stays open after
//! that. Sources: <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html> and
//! <https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth-iam.html>.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use time::OffsetDateTime;

use crate::clock::Clock;

/// The lifetime of a token: the longest that both services accept.
pub const TOKEN_TTL: Duration = Duration::from_mins(15);

/// The database or cache that a token gives access to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthTarget<'d> {
    /// A database of RDS or Aurora, identified by its endpoint.
    Rds {
        /// The endpoint's host name.
        host: &'d str,
        /// The endpoint's port.
        port: u16,
    },
    /// A cache of `ElastiCache`, identified by its name: that of the replication group or of the serverless cache, in
    /// lower case.
    ElastiCache {
        /// The cache's name.
        cache: &'d str,
        /// Whether the cache is serverless.
        serverless: bool,
    },
}

/// A token that cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The Region is not configured.
    #[error("no Region is configured: set AWS_REGION")]
    NoRegion,
    /// There are no credentials to sign with.
    #[error("no AWS credentials to sign the login token with: {0}")]
    NoCredentials(String),
    /// The target or the user does not fit into a URL.
    #[error("cannot sign the login token: {0}")]
    Signing(String),
}

/// A temporary password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthToken {
    text: String,
    until: OffsetDateTime,
}

impl AuthToken {
    /// Returns the password to log in with.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.text
    }

    /// Returns the time until which the token opens connections.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.until
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(until {})", self.until)
    }
}

/// Signs tokens with the function's own credentials.
#[derive(Debug, Clone)]
pub struct TokenSigner {
    sdk: Arc<SdkConfig>,
    clock: Clock,
}

impl TokenSigner {
    /// Creates a signer with the credentials and the Region of `sdk`. Missing configuration is reported by
    /// [`Self::sign`].
    #[must_use]
    pub fn new(sdk: &SdkConfig, clock: Clock) -> Self {
        Self { sdk: Arc::new(sdk.clone()), clock }
    }

    /// Returns the AWS configuration: a login with a Secrets Manager secret uses the same one.
    #[must_use]
    pub fn sdk(&self) -> &SdkConfig {
        &self.sdk
    }

    /// Signs a token that lets `user` log in at `door`, valid from now on.
    ///
    /// # Errors
    /// [`TokenError`], which names the missing configuration.
    pub async fn sign(&self, door: AuthTarget<'_>, user: &str) -> Result<AuthToken, TokenError> {
        let region = self.sdk.region().ok_or(TokenError::NoRegion)?.as_ref();
        let provider =
            self.sdk.credentials_provider().ok_or_else(|| TokenError::NoCredentials("none are set".to_owned()))?;
        let credentials = provider.provide_credentials().await;
        let identity = credentials.map_err(|error| TokenError::NoCredentials(error.to_string()))?.into();
        let now = self.clock.now();
        // Both services sign the same kind of request; both omit the scheme from the token.
        let (service, host, query) = presigned_query(door, user)?;
        let url = format!("https://{host}/?{query}");

        let mut settings = SigningSettings::default();
        settings.expires_in = Some(TOKEN_TTL);
        settings.signature_location = SignatureLocation::QueryParams;
        let unsigned = |error: &dyn fmt::Display| TokenError::Signing(error.to_string());
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(service)
            .time(now.into())
            .settings(settings)
            .build()
            .map_err(|error| unsigned(&error))?;
        let request = SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::empty());
        let signed = sign(request.map_err(|error| unsigned(&error))?, &params.into());
        let (instructions, _) = signed.map_err(|error| unsigned(&error))?.into_parts();

        let mut text = format!("{host}/?{query}");
        for (name, value) in instructions.params() {
            text.push('&');
            text.push_str(name);
            text.push('=');
            text.push_str(&encoded(value));
        }
        Ok(AuthToken { text, until: now + TOKEN_TTL })
    }
}

/// Returns the service name for the signature, and the host and the query of the request that forms the token.
fn presigned_query(door: AuthTarget<'_>, user: &str) -> Result<(&'static str, String, String), TokenError> {
    if user.is_empty() {
        return Err(TokenError::Signing("the URL has no user".to_owned()));
    }
    let user = encoded(user);
    Ok(match door {
        AuthTarget::Rds { host, port } => ("rds-db", format!("{host}:{port}"), format!("Action=connect&DBUser={user}")),
        AuthTarget::ElastiCache { cache, serverless } => {
            let kind = if serverless { "&ResourceType=ServerlessCache" } else { "" };
            ("elasticache", cache.to_owned(), format!("Action=connect&User={user}{kind}"))
        }
    })
}

/// Percent-encodes all characters except the unreserved ones of RFC 3986, as signatures require.
fn encoded(text: &str) -> String {
    const RESERVED: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use time::macros::datetime;

    use super::*;

    fn signer(region: Option<&'static str>) -> TokenSigner {
        let credentials = Credentials::new("akid", "secret", None, None, "test");
        let mut sdk = SdkConfig::builder().behavior_version(BehaviorVersion::latest());
        sdk.set_region(region.map(Region::from_static));
        sdk.set_credentials_provider(Some(SharedCredentialsProvider::new(credentials)));
        TokenSigner::new(&sdk.build(), Clock::fixed(datetime!(2024-08-26 22:00 UTC)))
    }

    /// The test vector of `aws-sdk-rds`.
    #[tokio::test]
    async fn a_token_of_rds_is_that_of_aws_s_own_sdks() {
        let door = AuthTarget::Rds { host: "prod-instance.us-east-1.rds.amazonaws.com", port: 3306 };
        let token = signer(Some("us-east-1")).sign(door, "peccy").await.unwrap();
        assert_eq!(
            token.secret(),
            "prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=peccy\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=akid%2F20240826%2Fus-east-1%2Frds-db%2Faws4_request\
             &X-Amz-Date=20240826T220000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=dd0cba843009474347af724090233265628ace491ea17ce3eb3da098b983ad89"
        );
        assert_eq!(token.expires_at(), datetime!(2024-08-26 22:15 UTC));
    }

    #[tokio::test]
    async fn a_token_of_elasticache_names_the_cache_and_its_kind() {
        let signer = signer(Some("eu-west-1"));
        let of = async |serverless| {
            let door = AuthTarget::ElastiCache { cache: "users-cache", serverless };
            signer.sign(door, "mill race").await.unwrap().secret().to_owned()
        };
        let (group, serverless) = (of(false).await, of(true).await);
        assert!(group.starts_with("users-cache/?Action=connect&User=mill%20race&X-Amz-Algorithm="), "{group}");
        assert!(group.contains("eu-west-1%2Felasticache%2Faws4_request") && group.contains("Expires=900"), "{group}");
        let kind = "users-cache/?Action=connect&User=mill%20race&ResourceType=ServerlessCache&X-Amz-";
        assert!(serverless.starts_with(kind), "{serverless}");
    }

    #[tokio::test]
    async fn missing_region_is_named_and_the_token_is_not_shown() {
        let door = AuthTarget::Rds { host: "db", port: 5432 };
        let message = signer(None).sign(door, "ada").await.unwrap_err().to_string();
        assert!(message.contains("AWS_REGION"), "{message}");
        assert!(signer(Some("eu-west-1")).sign(door, "").await.is_err());
        let token = signer(Some("eu-west-1")).sign(door, "ada").await.unwrap();
        assert!(!format!("{token:?}").contains("Signature"));
    }
}
