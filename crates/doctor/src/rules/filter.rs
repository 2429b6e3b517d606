//! Rules on the filter of a mapping.

use super::RuleOutcome;
use crate::deployment::{FunctionPurpose, FunctionSettings, StreamDeployment, StreamMapping};
use crate::filter_pattern::FilterPattern;

fn patterns(mapping: &StreamMapping) -> Result<Vec<FilterPattern>, String> {
    let filters = mapping.filters.get()?.map_or(&[][..], Vec::as_slice);
    Ok(filters.iter().map(|pattern| FilterPattern::parse(pattern)).collect())
}

/// Returns the purpose of a mapping's function; a function that is not part of the deployment has none.
fn purpose(deployment: &StreamDeployment, mapping: &StreamMapping) -> Result<Option<FunctionPurpose>, String> {
    deployment.function_of(mapping).map_or(Ok(None), FunctionSettings::purpose)
}

/// Returns whether a mapping delivers the removals by TTL only, or is an archiver's.
fn reads_removals(deployment: &StreamDeployment, mapping: &StreamMapping) -> bool {
    let patterns = patterns(mapping).unwrap_or_default();
    let selects_ttl = |pattern: &FilterPattern| pattern.requires_service || pattern.requires_dynamodb;
    purpose(deployment, mapping) == Ok(Some(FunctionPurpose::Archiver))
        || (!patterns.is_empty() && patterns.iter().all(selects_ttl))
}

/// A filter over images in front of a replicator.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn replicator_filters_images(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let reads = patterns(mapping)?.iter().any(FilterPattern::reads_image);
    if !reads || purpose(deployment, mapping)? != Some(FunctionPurpose::Replicator) {
        return Ok(None);
    }
    Ok(Some("FilterCriteria names NewImage or OldImage in front of a replicator".to_owned()))
}

/// A pattern that matches no record.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn never_matches(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let patterns = patterns(mapping)?;
    if let Some(reason) = patterns.iter().find_map(|pattern| pattern.never_matches.as_deref()) {
        return Ok(Some(format!("a filter pattern matches no record: {reason}")));
    }
    if !patterns.iter().any(FilterPattern::reads_image) {
        return Ok(None);
    }
    let Some(view) = deployment.table_of(mapping)?.stream_view.get()? else { return Ok(None) };
    let lacks = |name: &str, reads: bool, views: [&str; 2]| {
        (reads && views.contains(&view.as_str()))
            .then(|| format!("a filter pattern names {name}, which the stream's view {view} does not contain"))
    };
    Ok(patterns.iter().find_map(|pattern| {
        lacks("NewImage", pattern.reads_new_image, ["KEYS_ONLY", "OLD_IMAGE"])
            .or_else(|| lacks("OldImage", pattern.reads_old_image, ["KEYS_ONLY", "NEW_IMAGE"]))
    }))
}

/// A filter that has discarded every record.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn has_matched_nothing(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    if mapping.filters.get()?.is_none_or(Vec::is_empty) {
        return Ok(None);
    }
    let (Some(polled), Some(filtered)) = (mapping.observed.polled.get()?, mapping.observed.filtered_out.get()?) else {
        return Ok(None);
    };
    Ok((*polled > 0 && filtered >= polled)
        .then(|| format!("the filter discarded all {polled} records of the last 14 days (FilteredOutEventCount)")))
}

/// A TTL filter with half of the identity.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn selects_user_deletes(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let patterns = patterns(mapping)?;
    let half = patterns.iter().find(|pattern| pattern.requires_service != pattern.requires_dynamodb);
    if half.is_some() {
        return Ok(Some("the filter names only one of userIdentity.type and userIdentity.principalId".to_owned()));
    }
    let is_open = patterns.iter().any(|pattern| pattern.only_removals && !pattern.requires_service);
    let is_archiver = is_open && purpose(deployment, mapping)? == Some(FunctionPurpose::Archiver);
    Ok(is_archiver.then(|| "the filter selects every REMOVE, not only those of TTL".to_owned()))
}

/// A stream view without the image that the function needs.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn image_is_missing(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let is_replicator = purpose(deployment, mapping)? == Some(FunctionPurpose::Replicator);
    let is_archiver = reads_removals(deployment, mapping);
    if !is_replicator && !is_archiver {
        return Ok(None);
    }
    let table = deployment.table_of(mapping)?;
    let Some(view) = table.stream_view.get()? else { return Ok(None) };
    let lacks_new = is_replicator && matches!(view.as_str(), "KEYS_ONLY" | "OLD_IMAGE");
    let lacks_old = is_archiver && matches!(view.as_str(), "KEYS_ONLY" | "NEW_IMAGE");
    Ok(match (lacks_new, lacks_old) {
        (true, _) => Some(format!("the stream's view is {view}: a replicator needs the new image")),
        (_, true) => Some(format!("the stream's view is {view}: removals need the old image to be archived")),
        _ => None,
    })
}
