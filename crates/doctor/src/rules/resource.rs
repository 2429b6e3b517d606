//! Rules on keys and routes.

use super::RuleJudgement;
use crate::deployment::{KeySettings, RouteSettings};

/// A key that cannot be used.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn key_is_disabled(key: &KeySettings) -> RuleJudgement {
    let state = key.state.known().map_or("disabled", String::as_str);
    Ok((!key.enabled.or_default(true)?).then(|| format!("the key is {state}")))
}

/// A route that everybody may call.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn route_is_open(route: &RouteSettings) -> RuleJudgement {
    Ok((!route.authorized.or_default(false)?).then(|| format!("{} has no authorizer", route.route)))
}
