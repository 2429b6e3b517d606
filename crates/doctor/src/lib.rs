//! Finds the settings of a DynamoDB-stream deployment that lose records: the library of `millrace doctor`.
//!
//! [`template_reader`] converts a template of `CloudFormation` or SAM to a [`deployment::StreamDeployment`], in which
//! each setting is known, absent or unresolved; [`terraform_plan`] converts a Terraform plan, and [`account_reader`] the
//! recorded responses of an account, to the same model. This crate calls no AWS service.
//! [`diagnosis::diagnose`] applies the rules of [`rule_table::RULES`], which are pure functions, to the deployment, and
//! [`report`] formats the result. [`explanation`] replays a setting in the simulator of the event source mapping, to
//! show the records that it loses.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! let template = "
//! Resources:
//!   Users:
//!     Type: AWS::DynamoDB::Table
//!     Properties: {StreamSpecification: {StreamViewType: NEW_IMAGE}}
//!   Mapping:
//!     Type: AWS::Lambda::EventSourceMapping
//!     Properties:
//!       EventSourceArn: !GetAtt Users.StreamArn
//!       FunctionName: other
//!       StartingPosition: LATEST
//!       MaximumRetryAttempts: 3
//! ";
//! let reading = millrace_doctor::template_reader::read(template, "t.yaml", None, &BTreeMap::new());
//! let reading = reading.expect("a template");
//! let diagnosis = millrace_doctor::diagnosis::diagnose(&reading.deployment);
//! let rules: Vec<&str> = diagnosis.findings.iter().map(|finding| finding.rule.id).collect();
//! assert!(rules.contains(&"discarded-without-destination") && rules.contains(&"starts-at-latest"));
//! ```

pub mod access_policy;
pub mod account_call;
mod account_observation;
pub mod account_reader;
pub mod account_recording;
pub mod account_turns;
mod api_document;
pub mod deployment;
pub mod deployment_builder;
pub mod deployment_file;
pub mod diagnosis;
pub mod explanation;
pub mod filter_pattern;
pub mod iam_policy;
pub mod replay;
mod replica_address;
pub mod report;
pub mod resource_entry;
pub mod rule_table;
pub mod rules;
pub mod setting;
pub mod template_document;
pub mod template_error;
mod template_loop;
pub mod template_node;
pub mod template_reader;
pub mod template_scope;
pub mod terraform_plan;
#[cfg(test)]
mod tests;
