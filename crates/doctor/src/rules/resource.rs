//! Rules on routes.

use super::RuleJudgement;
use crate::deployment::RouteSettings;

/// A route that everybody may call.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn route_is_open(route: &RouteSettings) -> RuleJudgement {
    Ok((!route.authorized.or_default(false)?).then(|| format!("{} has no authorizer", route.route)))
}
