//! What a connection logs in with. [`Login`]

use crate::token::{Door, TokenSigner};

use super::address::Address;

/// What a connection logs in with.
#[derive(Debug, Clone)]
pub enum Login {
    /// The password of the URL, if it has one.
    Password,
    /// A token of IAM, signed anew for each connection.
    Iam(TokenSigner),
}

impl Login {
    /// The password for a connection now; nothing leaves the URL's own.
    pub(super) async fn password(&self, address: &Address) -> Result<Option<String>, String> {
        match self {
            Self::Password => Ok(None),
            Self::Iam(signer) => {
                let door = Door::Rds { host: address.host(), port: address.port() };
                let token = signer.sign(door, address.user()).await.map_err(|error| error.to_string())?;
                Ok(Some(token.secret().to_owned()))
            }
        }
    }
}
