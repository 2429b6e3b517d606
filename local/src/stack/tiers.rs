//! What the optional tiers need before the template is read, and after.
//!
//! A template says where a tier's server is by the outputs of a nested stack; here it is known once the server's port is
//! taken. So a tier is planned first, then the template is read, and then the server is started.

use std::time::Duration;

use replicator::sink::postgres::{SETTING, migrate};
use shared::postgres::Settings;
use tokio::time::Instant;

use super::{Options, Refusal};
use crate::postgres::{Planned, Server};
use crate::tier::{Tier, Urls};

/// Far more than the steps take on tables that are empty.
const MIGRATED_WITHIN: Duration = Duration::from_mins(1);

/// The tiers that are on.
pub(super) struct Tiers {
    /// Where their servers are, or will be.
    pub(super) urls: Urls,
    postgres: Option<Planned>,
}

impl Tiers {
    pub(super) fn plan(options: &Options) -> Result<Self, Refusal> {
        let planned = match &options.postgres {
            Tier::Auto if options.data.is_some() => return Err(Refusal::Forgetful { option: "--postgres" }),
            Tier::Auto => Some(Planned::new()?),
            Tier::Off | Tier::At(_) => None,
        };
        let postgres = planned.as_ref().map(Planned::url).or_else(|| options.postgres.url().map(str::to_owned));
        Ok(Self { urls: Urls { postgres }, postgres: planned })
    }

    /// Starts what is to be started, and makes the tables, as the task `migrate` does elsewhere.
    pub(super) async fn start(self) -> Result<Option<Server>, Refusal> {
        let server = match self.postgres {
            Some(planned) => Some(planned.start().await?),
            None => None,
        };
        if let Some(url) = &self.urls.postgres {
            let settings = Settings::parse(SETTING, |name| (name == SETTING).then_some(url.as_str()));
            let settings = settings.map_err(|problems| Refusal::Tables(problems.join("; ")))?;
            if let Some(settings) = settings {
                let migrated = migrate(&settings.database(None, ""), Instant::now() + MIGRATED_WITHIN).await;
                migrated.map_err(|unmigrated| Refusal::Tables(unmigrated.to_string()))?;
            }
        }
        Ok(server)
    }
}
