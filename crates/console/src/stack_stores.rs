//! The stores that the pages of every stack read: [`StackStores`]. A [`StackOrigin`] is local or deployed.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::html;
use millrace_local::observer::ChangeObserver;
use millrace_local::stack::LocalStack;
use millrace_maintenance::MaintenanceHandler;
use millrace_shared::cache::{Cache, CacheSettings};

use crate::deployed_stack::DeployedStack;
use crate::{ConsoleContext, frame};

/// The tables, replicas, archive and failure bucket of a stack, as its maintenance function reads them, and its cache.
#[derive(Clone)]
pub(crate) struct StackStores {
    pub(crate) maintenance: Arc<MaintenanceHandler>,
    pub(crate) cache: StackCache,
}

/// The cache of a stack.
#[derive(Clone)]
pub(crate) enum StackCache {
    /// The stack has none.
    Off,
    /// It can be read.
    Reachable(Cache),
    /// It can be reached only from the network of the stack, if it has one.
    InNetwork,
}

/// Why a part of a stack cannot be read or started, and the status of the page that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StackUnavailable {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
}

impl StackUnavailable {
    /// Returns the reason of a call that failed.
    pub(crate) fn unreadable(reason: String) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, reason }
    }

    /// Renders the page at this path, which says so.
    pub(crate) fn page(&self, path: &str, title: &str) -> Response {
        let body = html! {
            (frame::problem(&self.reason))
            p { a href=(path) { "Open the page again" } }
        };
        (self.status, frame::page(path, title, &body)).into_response()
    }
}

/// Where a stack runs.
#[derive(Clone)]
pub(crate) enum StackOrigin {
    /// On this machine.
    Local(LocalOrigin),
    /// In an account.
    Deployed(Arc<DeployedStack>),
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
        let cache = settings.map_or(StackCache::Off, |settings| StackCache::Reachable(Cache::new(settings, None)));
        let stores = stack.maintenance().map(|maintenance| StackStores { maintenance: Arc::new(maintenance), cache });
        Self { stack, stores }
    }
}

impl StackOrigin {
    /// Returns the observer of the changes, if the stack has one.
    pub(crate) fn changes(&self) -> Option<&Arc<ChangeObserver>> {
        match self {
            Self::Local(LocalOrigin { stack, .. }) => stack.observer(),
            Self::Deployed(_) => None,
        }
    }

    /// Returns whether the stack runs on this machine.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

impl ConsoleContext {
    /// Returns the stores.
    ///
    /// # Errors
    /// [`StackUnavailable`], with what to do.
    pub(crate) async fn stores(&self) -> Result<StackStores, StackUnavailable> {
        match &self.origin {
            StackOrigin::Local(LocalOrigin { stores, .. }) => stores.clone().ok_or_else(|| StackUnavailable {
                status: StatusCode::CONFLICT,
                reason: "The template has no maintenance function, which names the tables and the buckets.".to_owned(),
            }),
            StackOrigin::Deployed(stack) => {
                let connection = stack.connect().await.map_err(StackUnavailable::unreadable)?;
                let maintenance = connection.maintenance.clone().map_err(StackUnavailable::unreadable)?;
                Ok(StackStores { maintenance, cache: StackCache::InNetwork })
            }
        }
    }
}
