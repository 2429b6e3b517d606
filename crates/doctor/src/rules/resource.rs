//! Rules on routes.

use super::RuleOutcome;
use crate::deployment::RouteSettings;

/// A route that everybody may call.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn route_is_open(route: &RouteSettings) -> RuleOutcome {
    Ok((!route.authorized.or_default(false)?).then(|| format!("{} has no authorizer", route.route)))
}
