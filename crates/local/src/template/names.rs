//! Local names of resources, derived from their logical IDs.
//!
//! The rule: a table's name is its ID without `Table`; a bucket's name is `users-` and its ID without `Bucket`, in
//! kebab case. There are two exceptions for readability: `ReplicaTable` is `UsersReplica`, `FailureBucket` is
//! `users-failures`. A function has the name of its cargo binary. A name that the template itself specifies
//! (`TableName`, `BucketName`) is for AWS and not used here.

/// Returns the local name of a table.
#[must_use]
pub fn table(logical_id: &str) -> String {
    match logical_id {
        "ReplicaTable" => "UsersReplica".to_owned(),
        other => stem(other, "Table").to_owned(),
    }
}

/// Returns the local name of a bucket.
#[must_use]
pub fn bucket(logical_id: &str) -> String {
    let stem = match logical_id {
        "FailureBucket" => "Failures",
        other => stem(other, "Bucket"),
    };
    let mut name = "users".to_owned();
    for character in stem.chars() {
        if character.is_ascii_uppercase() {
            name.push('-');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

fn stem<'a>(logical_id: &'a str, kind: &str) -> &'a str {
    logical_id.strip_suffix(kind).filter(|stem| !stem.is_empty()).unwrap_or(logical_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let tables = ["UsersTable", "ReplicaTable", "IdempotencyTable", "Emails", "Table"].map(table);
        assert_eq!(tables, ["Users", "UsersReplica", "Idempotency", "Emails", "Table"]);
        let buckets = ["ArchiveBucket", "FailureBucket", "AccessLogBucket"].map(bucket);
        assert_eq!(buckets, ["users-archive", "users-failures", "users-access-log"]);
    }
}
