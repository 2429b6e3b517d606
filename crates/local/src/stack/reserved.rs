//! Check of the source table's attributes against the names that replication reserves: [`check_attributes`].

use millrace_shared::replica_item::ReservedNames;

use super::{StartError, maintenance_function, source_table};
use crate::template::SamTemplate;

/// The variable with the prefix of the reserved names.
const RESERVED_PREFIX: &str = "RESERVED_PREFIX";

/// Fails if a key attribute or the TTL attribute of the source table has a reserved name: every item of such a table
/// would be quarantined.
pub(super) fn check_attributes(template: &SamTemplate) -> Result<(), StartError> {
    let Some(table) = source_table(template) else { return Ok(()) };
    let prefix = maintenance_function(template).and_then(|function| function.environment.get(RESERVED_PREFIX));
    let names = match prefix.filter(|prefix| !prefix.is_empty()).map(|prefix| ReservedNames::parse(prefix)) {
        Some(Ok(names)) => names,
        None => ReservedNames::default(),
        // The function reports the prefix, together with its other variables.
        Some(Err(_)) => return Ok(()),
    };
    let keys = table.keys.iter().map(|key| (&key.name, "key attribute"));
    let ttl = table.ttl_attribute.iter().map(|name| (name, "TTL attribute"));
    match keys.chain(ttl).find(|(name, _)| names.all().contains(&name.as_str())) {
        Some((attribute, role)) => {
            let (table, attribute) = (table.name.clone(), attribute.clone());
            Err(StartError::ReservedAttribute { table, attribute, role })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::template::{ParameterOverrides, SourceTable};

    /// Checks a table with this partition key and this TTL attribute.
    fn checked(parameters: &[(&str, &str)], ttl_attribute: Option<&str>) -> Result<(), String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/replication.yaml");
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let choices =
            ParameterOverrides { parameters: parameters.iter().map(pair).collect(), ..ParameterOverrides::default() };
        let source = SourceTable { ttl_attribute: ttl_attribute.map(str::to_owned), ..SourceTable::default() };
        let template = SamTemplate::load_for(&path, &choices, &source).unwrap();
        check_attributes(&template).map_err(|error| error.to_string())
    }

    #[test]
    fn attribute_with_a_reserved_name_is_refused_with_the_parameter_that_changes_it() {
        assert_eq!(checked(&[("PartitionKey", "pk:S"), ("SortKey", "sk:N")], Some("ttl")), Ok(()));
        let message = checked(&[("PartitionKey", "pk:S"), ("SortKey", "_rev:N")], None).unwrap_err();
        for part in ["key attribute \"_rev\" of table Source", "--parameter ReservedPrefix=mr_"] {
            assert!(message.contains(part), "{message}");
        }
        let message = checked(&[("PartitionKey", "pk:S")], Some("_tombstone_expires_at")).unwrap_err();
        assert!(message.contains("TTL attribute \"_tombstone_expires_at\""), "{message}");
        let prefix = ("ReservedPrefix", "mr_");
        assert_eq!(checked(&[("PartitionKey", "_rev:S"), prefix], Some("_tombstone_expires_at")), Ok(()));
        assert!(checked(&[("PartitionKey", "mr_rev:S"), prefix], None).is_err());
    }
}
