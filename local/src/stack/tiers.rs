//! What the optional tiers need before the template is read, and after.
//!
//! A template says where a tier's server is by the outputs of a nested stack; here it is known once the server's port is
//! taken. So a tier is planned first, then the template is read, and then the server is started.

use std::time::Duration;

use replicator::sink::postgres::{SETTING, migrate};
use shared::postgres::Settings;
use tokio::time::Instant;

use super::{Options, Refusal};
use crate::cache;
use crate::postgres::{self, Planned};
use crate::tier::{Tier, Urls};

/// Far more than the steps take on tables that are empty.
const MIGRATED_WITHIN: Duration = Duration::from_mins(1);

/// The tiers that are on.
pub(super) struct Tiers {
    /// Where their servers are, or will be.
    pub(super) urls: Urls,
    postgres: Option<Planned>,
    cache: Option<cache::Server>,
}

/// The servers that were started for the tiers; dropped, they end.
#[derive(Default)]
pub(super) struct Servers {
    pub(super) postgres: Option<postgres::Server>,
    _cache: Option<cache::Server>,
}

impl Tiers {
    pub(super) fn plan(options: &Options) -> Result<Self, Refusal> {
        let planned = match &options.postgres {
            Tier::Auto if options.data.is_some() => return Err(Refusal::Forgetful { option: "--postgres" }),
            Tier::Auto => Some(Planned::new()?),
            Tier::Off | Tier::At(_) => None,
        };
        let postgres = planned.as_ref().map(Planned::url).or_else(|| options.postgres.url().map(str::to_owned));
        // A cache holds nothing that is not elsewhere: a throwaway serves kept data as well.
        let started = match &options.cache {
            Tier::Auto => Some(cache::Server::spawn(&[])?),
            Tier::Off | Tier::At(_) => None,
        };
        let cache = started.as_ref().map(cache::Server::url).or_else(|| options.cache.url().map(str::to_owned));
        Ok(Self { urls: Urls { postgres, cache }, postgres: planned, cache: started })
    }

    /// Starts what is to be started, and makes the tables, as the task `migrate` does elsewhere.
    pub(super) async fn start(self) -> Result<Servers, Refusal> {
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
        match (&self.cache, &self.urls.cache) {
            (Some(started), _) => started.ready(&started.url()).await?,
            (None, Some(url)) => cache::reach(url).await?,
            (None, None) => {}
        }
        Ok(Servers { postgres: server, _cache: self.cache })
    }
}
