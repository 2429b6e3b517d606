//! What the pages of every stack read: [`StackStores`]. Where it comes from is the business of a [`StackOrigin`].

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use millrace_local::observer::ChangeObserver;
use millrace_local::stack::LocalStack;
use millrace_maintenance::MaintenanceHandler;
use millrace_shared::cache::{Cache, CacheSettings};

use crate::frame;

/// The tables, replicas, archive and failure bucket of a stack, as its maintenance function reads them, and its cache.
#[derive(Clone)]
pub(crate) struct StackStores {
    pub(crate) maintenance: Arc<MaintenanceHandler>,
    /// The cache; `None` if the stack has none.
    pub(crate) cache: Option<Cache>,
}

/// Why there are no stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoresUnavailable {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
}

impl StoresUnavailable {
    /// Renders the page that says so.
    pub(crate) fn page(&self, title: &str) -> Response {
        frame::failed(self.status, "/", title, &self.reason)
    }
}

/// Where a stack runs.
#[derive(Clone)]
pub(crate) enum StackOrigin {
    /// On this machine.
    Local(LocalOrigin),
}

/// A stack of this machine with its stores.
#[derive(Clone)]
pub(crate) struct LocalOrigin {
    pub(crate) stack: Arc<LocalStack>,
    /// The stores; `None` if the template has no maintenance function, which names them.
    pub(crate) stores: Option<StackStores>,
}

impl LocalOrigin {
    pub(crate) fn new(stack: Arc<LocalStack>) -> Self {
        // The stack has started with this URL, so it is valid.
        let settings = stack
            .cache_url()
            .and_then(|url| CacheSettings::parse(|name| (name == "CACHE_URL").then_some(url)).ok().flatten());
        let cache = settings.map(|settings| Cache::new(settings, None));
        let stores = stack.maintenance().map(|maintenance| StackStores { maintenance: Arc::new(maintenance), cache });
        Self { stack, stores }
    }
}

impl StackOrigin {
    /// Returns the stores.
    ///
    /// # Errors
    /// [`StoresUnavailable`], with what to do.
    pub(crate) fn stores(&self) -> Result<StackStores, StoresUnavailable> {
        let Self::Local(LocalOrigin { stores, .. }) = self;
        stores.clone().ok_or_else(|| StoresUnavailable {
            status: StatusCode::CONFLICT,
            reason: "The template has no maintenance function, which names the tables and the buckets.".to_owned(),
        })
    }

    /// Returns the observer of the changes, if the stack has one.
    pub(crate) fn changes(&self) -> Option<&Arc<ChangeObserver>> {
        let Self::Local(LocalOrigin { stack, .. }) = self;
        stack.observer()
    }
}
