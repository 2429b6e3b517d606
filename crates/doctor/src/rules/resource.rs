//! Rules on keys and routes.

use super::RuleJudgement;
use crate::deployment::{KeySettings, RouteSettings};

/// A key that cannot be used.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn key_is_disabled(key: &KeySettings) -> RuleJudgement {
    Ok((!key.enabled.or_default(true)?).then(|| "the key is disabled".to_owned()))
}

/// A route that everybody may call.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn route_is_open(route: &RouteSettings) -> RuleJudgement {
    Ok((!route.authorized.or_default(false)?).then(|| format!("{} has no authorizer", route.route)))
}
