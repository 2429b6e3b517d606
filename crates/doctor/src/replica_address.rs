//! The DynamoDB replicas that a function of Millrace names in its environment variables: [`replicas_of`].

use std::collections::BTreeMap;

use serde_json::Value;

use crate::setting::SettingValue;

/// The variable with the replication document, or with its address in S3.
const DOCUMENT: &str = "REPLICATION";

/// Returns the Region and the account of an ARN.
pub(crate) fn region_and_account(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.split(':').skip(3);
    Some((parts.next()?, parts.next()?))
}

/// A replica as the function names it.
#[derive(Default)]
struct ReplicaAddress {
    table: String,
    region: Option<String>,
    role: Option<String>,
}

impl ReplicaAddress {
    /// Returns the table, if it is in the Region and the account of the function; those of another one are not read.
    fn table(self, function: &str) -> SettingValue<String> {
        let here = region_and_account(function);
        let of_arn = self.table.starts_with("arn:").then(|| region_and_account(&self.table)).flatten();
        let is_here = self.role.is_none()
            && (of_arn.is_none() || of_arn == here)
            && self.region.as_deref().is_none_or(|region| here.is_some_and(|(own, _)| own == region));
        if is_here {
            SettingValue::Known(self.table)
        } else {
            SettingValue::Unresolved(format!(
                "the replica {} is in another Region or account, which is not read",
                self.table
            ))
        }
    }
}

/// Returns the names of the replicas of the function with this ARN: those of its replication document, or the one of
/// `REPLICA_TABLE`. A replica that cannot be compared is unresolved, with the reason.
pub(crate) fn replicas_of(
    function: &str,
    environment: &BTreeMap<String, SettingValue<String>>,
) -> Vec<SettingValue<String>> {
    let replicas = match variable_of(environment, DOCUMENT) {
        Ok(Some(document)) => replicas_in_document(&document),
        Ok(None) => replicas_in_variables(|name| variable_of(environment, name)),
        Err(reason) => Err(reason),
    };
    match replicas {
        Ok(replicas) => replicas.into_iter().map(|replica| replica.table(function)).collect(),
        Err(reason) => vec![SettingValue::Unresolved(reason)],
    }
}

/// Returns the names of the replicas of the function's document, as its logs and metrics have them. An archive, which
/// has no rules, is not one of them.
///
/// # Errors
/// The reason if the replication document is not part of the configuration.
pub(crate) fn replica_names(environment: &BTreeMap<String, SettingValue<String>>) -> Result<Vec<String>, String> {
    let Some(document) = variable_of(environment, DOCUMENT)? else { return Ok(Vec::new()) };
    let document = parse_document(&document)?;
    let replicas = document["replicas"].as_array().map_or(&[][..], Vec::as_slice);
    let replicas = replicas.iter().filter(|replica| replica["sink"] != "archive");
    Ok(replicas.filter_map(|replica| Some(replica["name"].as_str()?.to_owned())).collect())
}

fn variable_of(environment: &BTreeMap<String, SettingValue<String>>, name: &str) -> Result<Option<String>, String> {
    match environment.get(name).map(SettingValue::get) {
        Some(Ok(value)) => Ok(value.filter(|text| !text.is_empty()).cloned()),
        Some(Err(reason)) => Err(reason),
        None => Ok(None),
    }
}

fn parse_document(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|_| "the replication document is not part of the configuration".to_owned())
}

fn replicas_in_document(document: &str) -> Result<Vec<ReplicaAddress>, String> {
    let document = parse_document(document)?;
    let address = |replica: &Value| {
        let text = |name: &str| replica[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Some(ReplicaAddress { table: text("table")?, region: text("region"), role: text("role_arn") })
    };
    let replicas = document["replicas"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(replicas.iter().filter(|replica| replica["sink"] == "dynamodb").filter_map(address).collect())
}

fn replicas_in_variables(
    variable: impl Fn(&str) -> Result<Option<String>, String>,
) -> Result<Vec<ReplicaAddress>, String> {
    let Some(table) = variable("REPLICA_TABLE")? else { return Ok(Vec::new()) };
    let (region, role) = (variable("REPLICA_REGION")?, variable("REPLICA_ROLE_ARN")?);
    Ok(vec![ReplicaAddress { table, region, role }])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: &str = "arn:aws:lambda:eu-west-1:123456789012:function:copier";

    fn replicas(variables: &[(&str, &str)]) -> Vec<SettingValue<String>> {
        let known = |(name, value): &(&str, &str)| ((*name).to_owned(), SettingValue::Known((*value).to_owned()));
        replicas_of(FUNCTION, &variables.iter().map(known).collect())
    }

    #[test]
    fn a_replica_of_another_region_or_account_is_not_resolved() {
        let known = |table: &str| vec![SettingValue::Known(table.to_owned())];
        for (variables, expected) in [
            (&[][..], Vec::new()),
            (&[("REPLICA_TABLE", "")], Vec::new()),
            (&[("REPLICA_TABLE", "Copy")], known("Copy")),
            (&[("REPLICA_TABLE", "Copy"), ("REPLICA_REGION", "eu-west-1")], known("Copy")),
            (
                &[("REPLICA_TABLE", "arn:aws:dynamodb:eu-west-1:123456789012:table/Copy")],
                known("arn:aws:dynamodb:eu-west-1:123456789012:table/Copy"),
            ),
        ] {
            assert_eq!(replicas(variables), expected, "{variables:?}");
        }
        for variables in [
            &[("REPLICA_TABLE", "Copy"), ("REPLICA_REGION", "us-east-1")][..],
            &[("REPLICA_TABLE", "Copy"), ("REPLICA_ROLE_ARN", "arn:aws:iam::2:role/r")],
            &[("REPLICA_TABLE", "arn:aws:dynamodb:eu-west-1:2:table/Copy")],
            &[("REPLICATION", "s3://bucket/document")],
        ] {
            assert!(matches!(replicas(variables)[..], [SettingValue::Unresolved(_)]), "{variables:?}");
        }
        let unresolved = SettingValue::Unresolved("an import".to_owned());
        let variables = BTreeMap::from([
            ("REPLICA_TABLE".to_owned(), SettingValue::Known("Copy".to_owned())),
            ("REPLICA_REGION".to_owned(), unresolved.clone()),
        ]);
        assert_eq!(replicas_of(FUNCTION, &variables), [unresolved]);
    }

    #[test]
    fn names_are_those_of_the_document() {
        let names = |variables: &[(&str, &str)]| {
            let known = |(name, value): &(&str, &str)| ((*name).to_owned(), SettingValue::Known((*value).to_owned()));
            replica_names(&variables.iter().map(known).collect())
        };
        assert_eq!(names(&[("REPLICA_TABLE", "A")]), Ok(Vec::new()));
        let document = r#"{"replicas": [
            {"name": "a", "sink": "dynamodb"}, {"name": "b", "sink": "postgres"}, {"name": "archive", "sink": "archive"}]}"#;
        assert_eq!(names(&[("REPLICATION", document)]).unwrap(), ["a", "b"]);
        assert!(names(&[("REPLICATION", "s3://bucket/document")]).is_err());
    }

    #[test]
    fn the_document_takes_precedence_and_names_each_replica() {
        let document = r#"{"replicas": [
            {"sink": "dynamodb", "table": "A"}, {"sink": "postgres", "table": "B"},
            {"sink": "dynamodb", "table": "C", "region": "us-east-1"}, {"sink": "dynamodb"}]}"#;
        let found = replicas(&[("REPLICATION", document), ("REPLICA_TABLE", "D")]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], SettingValue::Known("A".to_owned()));
        assert!(matches!(&found[1], SettingValue::Unresolved(reason) if reason.contains("replica C is in another")));
    }
}
