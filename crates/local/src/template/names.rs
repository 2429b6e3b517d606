//! Local names of resources, derived from their logical IDs.
//!
//! The rule: a table's name is its ID without `Table`; a bucket's name is `users-` and its ID without `Bucket`, in
//! kebab case. There are two exceptions for readability: `ReplicaTable` is `UsersReplica`, `FailureBucket` is
//! `users-failures`. If the source table is not part of the template, its name takes the place of `Users` and `users`:
//! `OrdersReplica` and `orders-failures`. A function has the name of its cargo binary. A name that the template itself
//! specifies (`TableName`, `BucketName`) is for AWS and not used here.

/// The longest name of a table.
const MAX_TABLE_NAME_LENGTH: usize = 255;
/// The longest part of a bucket's name that is from the name of the table; a bucket's name has at most 63 characters.
const MAX_BUCKET_PREFIX_LENGTH: usize = 40;

/// The names of the tables and buckets of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNames {
    replica: String,
    bucket_prefix: String,
}

impl Default for LocalNames {
    /// The names of the users service.
    fn default() -> Self {
        Self::from_source("Users")
    }
}

impl LocalNames {
    /// Returns the names of a stack that replicates the table with this name.
    #[must_use]
    pub fn from_source(table: &str) -> Self {
        const REPLICA: &str = "Replica";
        let stem: String = table.chars().take(MAX_TABLE_NAME_LENGTH - REPLICA.len()).collect();
        let letters = table.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
        let prefix: String = letters.take(MAX_BUCKET_PREFIX_LENGTH).collect();
        // A bucket's name begins with a letter or a digit.
        let prefix = prefix.trim_matches('-').to_ascii_lowercase();
        let bucket_prefix = if prefix.is_empty() { "source".to_owned() } else { prefix };
        Self { replica: format!("{stem}{REPLICA}"), bucket_prefix }
    }

    /// Returns the local name of a table.
    #[must_use]
    pub fn table(&self, logical_id: &str) -> String {
        match logical_id {
            "ReplicaTable" => self.replica.clone(),
            other => stem(other, "Table").to_owned(),
        }
    }

    /// Returns the local name of a bucket.
    #[must_use]
    pub fn bucket(&self, logical_id: &str) -> String {
        let stem = match logical_id {
            "FailureBucket" => "Failures",
            other => stem(other, "Bucket"),
        };
        let mut name = self.bucket_prefix.clone();
        for character in stem.chars() {
            if character.is_ascii_uppercase() {
                name.push('-');
            }
            name.push(character.to_ascii_lowercase());
        }
        name
    }
}

fn stem<'a>(logical_id: &'a str, kind: &str) -> &'a str {
    logical_id.strip_suffix(kind).filter(|stem| !stem.is_empty()).unwrap_or(logical_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let names = LocalNames::default();
        let tables = ["UsersTable", "ReplicaTable", "IdempotencyTable", "Emails", "Table"].map(|id| names.table(id));
        assert_eq!(tables, ["Users", "UsersReplica", "Idempotency", "Emails", "Table"]);
        let buckets = ["ArchiveBucket", "FailureBucket", "AccessLogBucket"].map(|id| names.bucket(id));
        assert_eq!(buckets, ["users-archive", "users-failures", "users-access-log"]);
    }

    #[test]
    fn names_of_another_source_table_begin_with_its_name() {
        for (table, replica, bucket) in [
            ("Orders", "OrdersReplica", "orders-archive"),
            ("prod.Order_Lines", "prod.Order_LinesReplica", "prod-order-lines-archive"),
            ("___", "___Replica", "source-archive"),
        ] {
            let names = LocalNames::from_source(table);
            assert_eq!((names.table("ReplicaTable"), names.bucket("ArchiveBucket")), (replica.into(), bucket.into()));
        }
        let names = LocalNames::from_source(&"a".repeat(255));
        assert_eq!(names.table("ReplicaTable").len(), 255);
        assert!(names.bucket("ArchiveBucket").len() <= 63);
    }
}
