//! The login of a connection. [`PostgresAuth`]

use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use serde::Deserialize;

use super::database_url::DatabaseUrl;
use crate::iam_token::{AuthTarget, TokenSigner};
use crate::secrets::SecretsClient;

/// The variable that names a Secrets Manager secret.
pub(super) const SECRET: &str = "POSTGRES_SECRET";

/// The credentials that a connection logs in with.
#[derive(Debug, Clone)]
pub enum PostgresAuth {
    /// The password in the URL, if it contains one.
    Password,
    /// An IAM token, signed for each new connection.
    Iam(TokenSigner),
    /// A Secrets Manager secret, read for each new connection, so that a rotation needs no manual step.
    Secret(LoginSecret),
}

/// A Secrets Manager secret: JSON with `username` and `password`, the format of the secrets that RDS manages.
#[derive(Debug, Clone)]
pub struct LoginSecret {
    client: SecretsClient,
    /// The secret's ARN or name.
    name: String,
}

/// A user and a password.
#[derive(Deserialize)]
pub(super) struct PostgresCredentials {
    /// If absent, the user in the URL applies.
    #[serde(rename = "username")]
    pub(super) user: Option<String>,
    pub(super) password: String,
}

impl PostgresAuth {
    /// Creates a login with the secret of this ARN or name, which is read with the AWS configuration of `signer`.
    pub(super) fn from_secret_arn(signer: &TokenSigner, name: &str) -> Self {
        Self::Secret(LoginSecret { client: SecretsClient::new(signer.sdk()), name: name.to_owned() })
    }

    /// Returns the current credentials; `None` if those in the URL apply.
    pub(super) async fn credentials(&self, address: &DatabaseUrl) -> Result<Option<PostgresCredentials>, String> {
        match self {
            Self::Password => Ok(None),
            Self::Iam(signer) => {
                let target = AuthTarget::Rds { host: address.host(), port: address.port() };
                let token = signer.sign(target, address.user()).await.map_err(|error| error.to_string())?;
                Ok(Some(PostgresCredentials { user: None, password: token.secret().to_owned() }))
            }
            Self::Secret(secret) => secret.read().await.map(Some),
        }
    }
}

impl LoginSecret {
    async fn read(&self) -> Result<PostgresCredentials, String> {
        let named = |what: &str| format!("uses the login in {SECRET} {}, which {what}", self.name);
        let text = self.client.text(&self.name).await.map_err(|error| {
            let why = error.code().map_or_else(|| "Secrets Manager is unreachable".to_owned(), str::to_owned);
            named(&format!("cannot be read ({why}): grant the function's role secretsmanager:GetSecretValue on it"))
        })?;
        // serde's error message would quote the secret's content.
        let pass = text.and_then(|text| serde_json::from_str(&text).ok());
        pass.ok_or_else(|| named("is not JSON with a username and a password"))
    }
}
