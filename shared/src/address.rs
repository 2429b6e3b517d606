//! The addresses of tables, IAM roles and KMS keys: [`TableAddress`], [`RoleArn`], [`key_arn`] and [`region`].

use serde::{Serialize, Serializer};

/// A `DynamoDB` table, by name or by ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableAddress {
    text: String,
    arn: Option<ArnParts>,
}

/// The parts of a table's ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ArnParts {
    partition: String,
    region: String,
    account: String,
    name: String,
}

impl TableAddress {
    /// Parses a name or an ARN.
    ///
    /// # Errors
    /// The problem and the fix if the text is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with("arn:") {
            return if is_table_name(text) {
                Ok(Self { text: text.to_owned(), arn: None })
            } else {
                Err(format!("is {text:?}: set it to a table name (3 to 255 characters a-z A-Z 0-9 _ - .) or ARN"))
            };
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let arn = match parts[..] {
            ["arn", partition, "dynamodb", region, account, resource] => {
                let name = resource.strip_prefix("table/").filter(|name| is_table_name(name));
                name.filter(|_| is_partition(partition) && is_label(region) && is_account(account)).map(|name| {
                    ArnParts {
                        partition: partition.to_owned(),
                        region: region.to_owned(),
                        account: account.to_owned(),
                        name: name.to_owned(),
                    }
                })
            }
            _ => None,
        };
        match arn {
            Some(arn) => Ok(Self { text: text.to_owned(), arn: Some(arn) }),
            None => Err(format!(
                "is {text:?}: set it to a table name, or to arn:aws:dynamodb:<region>:<account>:table/<name>"
            )),
        }
    }

    /// Parses an ARN; a name is refused.
    ///
    /// # Errors
    /// The problem and the fix if the text is not the ARN of a table.
    pub fn parse_arn(text: &str) -> Result<Self, String> {
        Self::parse(text).ok().filter(|table| table.arn.is_some()).ok_or_else(|| {
            format!(
                "is {text:?}: set it to arn:aws:dynamodb:<region>:<account>:table/<name>, which aws dynamodb \
                 describe-table --table-name NAME --query Table.TableArn --output text prints"
            )
        })
    }

    /// Returns the text that requests contain as the table's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.arn.as_ref().map_or(&self.text, |arn| &arn.name)
    }

    /// Returns the address of a table of this name, without the Region and account of the ARN.
    #[must_use]
    pub fn to_name(&self) -> Self {
        Self { text: self.name().to_owned(), arn: None }
    }

    /// Returns the Region of the ARN; `None` for a name.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.arn.as_ref().map(|arn| arn.region.as_str())
    }

    /// Returns the account of the ARN; `None` for a name.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.arn.as_ref().map(|arn| arn.account.as_str())
    }

    /// Returns the partition of the ARN, such as `aws` or `aws-cn`; `None` for a name.
    #[must_use]
    pub fn partition(&self) -> Option<&str> {
        self.arn.as_ref().map(|arn| arn.partition.as_str())
    }
}

impl Serialize for TableAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// The ARN of an IAM role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RoleArn(String);

impl RoleArn {
    /// Parses an ARN.
    ///
    /// # Errors
    /// The problem and the fix if the text is not the ARN of a role.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let is_role = match parts[..] {
            ["arn", partition, "iam", "", account, resource] => {
                let name = resource.strip_prefix("role/");
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-/".contains(&byte);
                is_partition(partition)
                    && is_account(account)
                    && name.is_some_and(|name| !name.is_empty() && !name.ends_with('/') && name.bytes().all(plain))
            }
            _ => false,
        };
        if is_role {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("is {text:?}: set it to arn:aws:iam::<account>:role/<name>"))
        }
    }

    /// Returns the text of the ARN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the partition, such as `aws` or `aws-cn`.
    #[must_use]
    pub fn partition(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// Returns the account.
    #[must_use]
    pub fn account(&self) -> &str {
        self.0.split(':').nth(4).unwrap_or_default()
    }
}

/// Parses the name of a Region, such as `eu-west-1` or `us-gov-east-1`.
///
/// # Errors
/// The problem and the fix if the text does not have the format.
pub fn region(text: &str) -> Result<String, String> {
    let mut parts = text.split('-').rev();
    let is_number = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let words: Vec<&str> = parts.collect();
    let is_word = |part: &&str| part.len() >= 2 && part.bytes().all(|byte| byte.is_ascii_lowercase());
    if is_number && words.len() >= 2 && words.iter().all(is_word) {
        Ok(text.to_owned())
    } else {
        Err(format!("is {text:?}: set it to a Region such as eu-west-1"))
    }
}

/// Parses the ARN of a KMS key, in the strictest form of the parameter `SourceKeyArn` of infra/replication.yaml.
///
/// # Errors
/// The problem and the fix if the text is not the ARN of a key, such as that of an alias.
pub fn key_arn(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let is_key = match parts[..] {
        ["arn", partition, "kms", region, account, resource] => {
            let id = resource.strip_prefix("key/");
            let is_id =
                |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            is_partition(partition) && is_label(region) && is_account(account) && id.is_some_and(is_id)
        }
        _ => false,
    };
    if is_key {
        Ok(text.to_owned())
    } else {
        Err(format!("is {text:?}: set it to arn:aws:kms:<region>:<account>:key/<id>"))
    }
}

fn is_table_name(text: &str) -> bool {
    (3..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_partition(text: &str) -> bool {
    text.starts_with("aws") && is_label(text)
}

/// Returns whether the text could be part of a host name. The Region of an ARN is not checked further, because an ARN
/// is copied and not typed.
fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_name_or_an_arn() {
        let name = TableAddress::parse("Orders.v2").unwrap();
        assert_eq!((name.name(), name.region(), name.account(), name.partition()), ("Orders.v2", None, None, None));
        let arn = TableAddress::parse("arn:aws-cn:dynamodb:cn-north-1:111122223333:table/Orders").unwrap();
        assert_eq!((arn.name(), arn.region(), arn.account()), ("Orders", Some("cn-north-1"), Some("111122223333")));
        assert_eq!(arn.partition(), Some("aws-cn"));
        for text in [
            "",
            "ab",
            "Orders!",
            "arn:aws:dynamodb:eu-west-1:111122223333:table/Orders/stream/2026",
            "arn:aws:dynamodb:eu-west-1:1111:table/Orders",
            "arn:aws:dynamodb::111122223333:table/Orders",
            "arn:aws:s3:::bucket",
            "arn:",
        ] {
            assert!(TableAddress::parse(text).unwrap_err().contains(&format!("{text:?}")), "{text}");
        }
        TableAddress::parse_arn(arn.as_str()).unwrap();
        for text in ["Orders", "arn:aws:s3:::bucket"] {
            let message = TableAddress::parse_arn(text).unwrap_err();
            assert!(message.contains(&format!("is {text:?}: set it to arn:aws:dynamodb:")), "{message}");
        }
    }

    #[test]
    fn a_role_is_an_arn_of_a_role() {
        let role = RoleArn::parse("arn:aws-us-gov:iam::111122223333:role/path/Replicator").unwrap();
        assert_eq!((role.partition(), role.account()), ("aws-us-gov", "111122223333"));
        for text in [
            "",
            "Replicator",
            "arn:aws:iam::111122223333:user/me",
            "arn:aws:iam::1:role/a",
            "arn:aws:iam::111122223333:role/",
        ] {
            assert!(RoleArn::parse(text).unwrap_err().contains("role/<name>"), "{text}");
        }
    }

    #[test]
    fn kms_key_is_an_arn_of_a_key() {
        for text in ["arn:aws:kms:eu-west-1:111122223333:key/mrk-0a1b", "arn:aws-cn:kms:cn-north-1:111122223333:key/0A"]
        {
            assert_eq!(key_arn(text).unwrap(), text);
        }
        for text in [
            "",
            "0a1b",
            "arn:aws:kms:eu-west-1:111122223333:alias/a",
            "arn:aws:kms:eu-west-1:111122223333:key/",
            "arn:aws:kms:eu-west-1:111122223333:key/0a CodeBucket=b",
            "arn:aws:kms:eu-west-1$(id):111122223333:key/0a",
            "arn:aws:kms:eu-west-1:111122223333:key/0a\n",
        ] {
            let message = key_arn(text).unwrap_err();
            assert!(message.contains(&format!("{text:?}")) && message.contains("key/<id>"), "{message}");
        }
    }

    #[test]
    fn a_region_has_words_and_a_number() {
        for text in ["eu-west-1", "us-gov-east-1", "ap-southeast-10", "us-iso-east-1"] {
            assert_eq!(region(text).unwrap(), text);
        }
        for text in ["", "eu", "eu-west", "EU-WEST-1", "eu-west-1a", "west-1", "eu_west_1", "eu-west-1 "] {
            assert!(region(text).unwrap_err().contains("eu-west-1"), "{text}");
        }
    }
}
