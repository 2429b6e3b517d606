//! What the optional tiers need before the template is read, and after.
//!
//! A template says where a tier's server is by the outputs of a nested stack; here it is known once the server's port is
//! taken. So a tier is planned first, then the template is read, and then the server is started.

use std::time::Duration;

use replicator::sink::postgres::{SETTING, migrate};
use shared::postgres::PostgresSettings;
use tokio::time::Instant;

use super::{StackOptions, StartError};
use crate::cache;
use crate::postgres::{self, PlannedServer};
use crate::tier::{TierServer, TierUrls};

/// Far more than the steps take on tables that are empty.
const MIGRATED_WITHIN: Duration = Duration::from_mins(1);

/// The tiers that are on.
pub(super) struct EnabledTiers {
    /// Where their servers are, or will be.
    pub(super) urls: TierUrls,
    postgres: Option<PlannedServer>,
    cache: Option<cache::CacheServer>,
}

/// The servers that were started for the tiers; dropped, they end.
#[derive(Default)]
pub(super) struct TierServers {
    pub(super) postgres: Option<postgres::PostgresServer>,
    _cache: Option<cache::CacheServer>,
}

impl EnabledTiers {
    pub(super) fn plan(options: &StackOptions) -> Result<Self, StartError> {
        let planned = match &options.postgres {
            TierServer::Auto if options.data.is_some() => {
                return Err(StartError::EphemeralTierWithData { option: "--postgres" });
            }
            TierServer::Auto => Some(PlannedServer::new()?),
            TierServer::Off | TierServer::At(_) => None,
        };
        let postgres = planned.as_ref().map(PlannedServer::url).or_else(|| options.postgres.url().map(str::to_owned));
        // A cache holds nothing that is not elsewhere: a throwaway serves kept data as well.
        let started = match &options.cache {
            TierServer::Auto => Some(cache::CacheServer::spawn(&[])?),
            TierServer::Off | TierServer::At(_) => None,
        };
        let cache = started.as_ref().map(cache::CacheServer::url).or_else(|| options.cache.url().map(str::to_owned));
        Ok(Self { urls: TierUrls { postgres, cache }, postgres: planned, cache: started })
    }

    /// Starts what is to be started, and makes the tables, as the task `migrate` does elsewhere.
    pub(super) async fn start(self) -> Result<TierServers, StartError> {
        let server = match self.postgres {
            Some(planned) => Some(planned.start().await?),
            None => None,
        };
        if let Some(url) = &self.urls.postgres {
            let settings = PostgresSettings::parse(SETTING, |name| (name == SETTING).then_some(url.as_str()));
            let settings = settings.map_err(|problems| StartError::Tables(problems.join("; ")))?;
            if let Some(settings) = settings {
                let migrated = migrate(&settings.database(None, ""), Instant::now() + MIGRATED_WITHIN).await;
                migrated.map_err(|unmigrated| StartError::Tables(unmigrated.to_string()))?;
            }
        }
        match (&self.cache, &self.urls.cache) {
            (Some(started), _) => started.ready(&started.url()).await?,
            (None, Some(url)) => cache::reach(url).await?,
            (None, None) => {}
        }
        Ok(TierServers { postgres: server, _cache: self.cache })
    }
}
