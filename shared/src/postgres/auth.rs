//! What a connection logs in with. [`PostgresAuth`]

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use serde::Deserialize;

use super::database_url::DatabaseUrl;
use crate::iam_token::{AuthTarget, TokenSigner};

/// The variable that names a secret.
pub(super) const SECRET: &str = "POSTGRES_SECRET";

/// What a connection logs in with.
#[derive(Debug, Clone)]
pub enum PostgresAuth {
    /// The password of the URL, if it has one.
    Password,
    /// A token of IAM, signed anew for each connection.
    Iam(TokenSigner),
    /// A secret of Secrets Manager, read anew for each connection, so that a rotation needs nobody's help.
    Secret(LoginSecret),
}

/// A secret of Secrets Manager: JSON with `username` and `password`, as RDS writes those that it manages.
#[derive(Debug, Clone)]
pub struct LoginSecret {
    client: aws_sdk_secretsmanager::Client,
    /// Its ARN or its name.
    name: String,
}

/// A user and a password.
#[derive(Deserialize)]
pub(super) struct PostgresCredentials {
    /// Nothing leaves the URL's own.
    #[serde(rename = "username")]
    pub(super) user: Option<String>,
    pub(super) password: String,
}

impl PostgresAuth {
    /// The secret of this name, read with what `signer` signs with.
    pub(super) fn from_secret_arn(signer: &TokenSigner, name: &str) -> Self {
        let client = aws_sdk_secretsmanager::Client::new(signer.sdk());
        Self::Secret(LoginSecret { client, name: name.to_owned() })
    }

    /// What to log in with now; nothing leaves the URL's own.
    pub(super) async fn pass(&self, address: &DatabaseUrl) -> Result<Option<PostgresCredentials>, String> {
        match self {
            Self::Password => Ok(None),
            Self::Iam(signer) => {
                let door = AuthTarget::Rds { host: address.host(), port: address.port() };
                let token = signer.sign(door, address.user()).await.map_err(|error| error.to_string())?;
                Ok(Some(PostgresCredentials { user: None, password: token.secret().to_owned() }))
            }
            Self::Secret(secret) => secret.read().await.map(Some),
        }
    }
}

impl LoginSecret {
    async fn read(&self) -> Result<PostgresCredentials, String> {
        let named = |what: &str| format!("asks for the login of {SECRET} {}, which {what}", self.name);
        let asked = self.client.get_secret_value().secret_id(&self.name).send().await;
        let answer = asked.map_err(|error| {
            let why = error.code().map_or_else(|| "Secrets Manager is not reached".to_owned(), str::to_owned);
            named(&format!("cannot be read ({why}): grant the function's role secretsmanager:GetSecretValue on it"))
        })?;
        // serde's own sentence would quote what it found.
        let pass = answer.secret_string().and_then(|text| serde_json::from_str(text).ok());
        pass.ok_or_else(|| named("is no JSON with a username and a password"))
    }
}
