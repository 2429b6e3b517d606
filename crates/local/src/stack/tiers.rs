//! Start of the optional tiers, before and after the template is read.
//!
//! In a template the URL of a tier's server is an output of a nested stack. Here it is known as soon as the server's
//! port is reserved. Therefore a tier is planned first, then the template is read with the URL, and then the server is
//! started.

use std::time::Duration;

use millrace_shared::postgres::PostgresSettings;
use millrace_sinks::postgres::{PostgresSchema, SETTING};
use tokio::time::Instant;

use super::{StackOptions, StartError};
use crate::cache;
use crate::postgres::{self, PlannedServer};
use crate::tier::{TierServer, TierUrls};

/// Time limit of the migrations; much longer than they take on empty tables.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(1);

/// The tiers that are on.
pub(super) struct EnabledTiers {
    /// The URLs of their servers, which may not be started yet.
    pub(super) urls: TierUrls,
    postgres: Option<PlannedServer>,
    cache: Option<cache::CacheServer>,
}

/// The servers that were started for the tiers; they are stopped when this is dropped.
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
        // A cache contains only copies, so a temporary server is allowed together with a data folder.
        let started = match &options.cache {
            TierServer::Auto => Some(cache::CacheServer::spawn(&[])?),
            TierServer::Off | TierServer::At(_) => None,
        };
        let cache = started.as_ref().map(cache::CacheServer::url).or_else(|| options.cache.url().map(str::to_owned));
        Ok(Self { urls: TierUrls { postgres, cache }, postgres: planned, cache: started })
    }

    /// Starts the planned servers and creates the tables, as the task `migrate` does on AWS.
    pub(super) async fn start(mut self, schema: &PostgresSchema) -> Result<TierServers, StartError> {
        let server = match self.postgres {
            Some(planned) => Some(planned.start().await?),
            None => None,
        };
        if let Some(url) = &self.urls.postgres {
            let settings = PostgresSettings::parse(SETTING, |name| (name == SETTING).then_some(url.as_str()));
            let settings = settings.map_err(|problems| StartError::Tables(problems.join("; ")))?;
            if let Some(settings) = settings {
                let migrated = schema.migrate(&settings.database(None, ""), Instant::now() + MIGRATION_TIMEOUT).await;
                migrated.map_err(|unmigrated| StartError::Tables(unmigrated.to_string()))?;
            }
        }
        match (&mut self.cache, &self.urls.cache) {
            (Some(started), _) => started.ready(&started.url()).await?,
            (None, Some(url)) => cache::check_reachable(url).await?,
            (None, None) => {}
        }
        Ok(TierServers { postgres: server, _cache: self.cache })
    }
}
