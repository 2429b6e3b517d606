//! Findings that prevent the deployment for a table that a stack on this machine replicates already:
//! [`deployment_notes`].

use std::fmt::Write as _;

use millrace_local::table_description::TableDescription;

use super::default_stack_name;
use super::findings::{AttachChoices, AttachPlan, FindingSeverity};
use super::observation::TableObservation;

/// Returns a note for each finding of `millrace attach` that prevents a deployment, although this machine creates the
/// table as replication requires it: its state, the fix, and the commands that turn its stream on.
pub(crate) fn deployment_notes(table: &TableDescription, reserved_prefix: &str) -> Vec<String> {
    let choices = AttachChoices {
        stack_name: default_stack_name(&table.name),
        stack_account: None,
        archive: None,
        replica_role: None,
        reserved_prefix: reserved_prefix.to_owned(),
    };
    let observation = TableObservation::offline(table.clone(), None);
    let plan = AttachPlan::new(&observation, &choices);
    let blocking = plan.findings.into_iter().filter(|finding| finding.severity == FindingSeverity::Blocks);
    blocking
        .map(|finding| {
            let mut note = format!(
                "note: {}: {}. Table {} of this machine is replicated nevertheless; for a deployment: {}",
                finding.subject, finding.text, table.name, finding.fix
            );
            for command in finding.commands {
                let _ = write!(note, "\n  {command}");
            }
            note
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use millrace_local::table_description::StreamViewType;

    use super::super::orders;
    use super::*;

    #[test]
    fn stream_that_cannot_be_replicated_is_noted_with_the_commands() {
        let mut table = orders();
        assert_eq!(deployment_notes(&table, "_"), [""; 0]);
        table.stream.as_mut().unwrap().view = StreamViewType::KeysOnly;
        let [note] = &deployment_notes(&table, "_")[..] else { panic!("one note") };
        assert!(note.starts_with("note: stream: the stream's view type is KEYS_ONLY"), "{note}");
        assert_eq!(note.matches("\n  aws dynamodb ").count(), 3, "{note}");
        table.stream = None;
        let [note] = &deployment_notes(&table, "_")[..] else { panic!("one note") };
        let command = "\n  aws dynamodb update-table --region eu-west-1 --table-name Orders --stream-specification \
                       StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES";
        assert!(note.contains("the table has no stream") && note.ends_with(command), "{note}");
    }
}
