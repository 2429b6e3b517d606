//! The readers of a stream that are pipes, and the security groups of a function in a VPC.

use serde_json::json;

use super::{VALID, diagnosis_of};
use crate::diagnosis::diagnose;
use crate::terraform_plan;

/// Returns the findings of a rule and the reasons why it is not checked for the valid template with these changes.
fn evaluated(rule: &str, changes: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let template = changes.iter().fold(VALID.to_owned(), |template, (from, to)| {
        assert!(template.contains(from), "the template has no {from}");
        template.replace(from, to)
    });
    let diagnosis = diagnosis_of(&template);
    let findings = diagnosis.findings.iter().map(|it| {
        assert_eq!(it.rule.id, rule, "{}", it.problem);
        it.problem.clone()
    });
    let unchecked = diagnosis.unchecked.iter().filter(|it| it.rule.id == rule);
    (findings.collect(), unchecked.map(|it| it.reason.clone()).collect())
}

#[test]
fn a_pipe_is_a_reader_of_the_stream_unless_it_is_stopped() {
    let pipe =
        |name: &str, properties: &str| format!("  {name}: {{Type: AWS::Pipes::Pipe, Properties: {{{properties}}}}}\n");
    let of_stream = "Source: !GetAtt Users.StreamArn";
    let with = |pipes: &[String]| {
        let pipes = pipes.concat() + "  Queue:";
        evaluated("too-many-readers", &[("  Queue:", &pipes)])
    };
    let one = pipe("One", of_stream);
    assert_eq!(with(std::slice::from_ref(&one)), (Vec::new(), Vec::new()));
    let message =
        "1 mapping and 2 pipes read this stream, and a stream serves 2; readers of another kind are not counted";
    assert_eq!(with(&[one.clone(), pipe("Two", of_stream)]).0, [message]);
    for other in ["Source: !GetAtt Queue.Arn", "Source: !GetAtt Users.StreamArn, DesiredState: STOPPED"] {
        assert_eq!(with(&[one.clone(), pipe("Two", other)]), (Vec::new(), Vec::new()), "{other}");
    }
    let imported = format!("{one}{}  Queue:", pipe("Two", "Source: !ImportValue stream"));
    let diagnosis = diagnosis_of(&VALID.replace("  Queue:", &imported));
    assert!(diagnosis.findings.is_empty());
    assert!(diagnosis.unread[0].1.starts_with("the source of the pipe: "), "{:?}", diagnosis.unread);
}

#[test]
fn a_pipe_of_a_plan_is_a_reader_of_the_stream() {
    let resource = |address: &str, values: serde_json::Value| {
        let kind = address.split('.').next().unwrap();
        json!({"address": address, "mode": "managed", "type": kind, "values": values})
    };
    let stream = json!({"references": ["aws_dynamodb_table.t.stream_arn", "aws_dynamodb_table.t"]});
    let plan = json!({
        "planned_values": {"root_module": {"resources": [
            resource("aws_dynamodb_table.t", json!({"name": "T"})),
            resource("aws_lambda_event_source_mapping.m", json!({"starting_position": "TRIM_HORIZON"})),
            resource("aws_pipes_pipe.a", json!({})),
            resource("aws_pipes_pipe.b", json!({"desired_state": "RUNNING"})),
        ]}},
        "configuration": {"root_module": {"resources": [
            {"address": "aws_lambda_event_source_mapping.m", "expressions": {"event_source_arn": stream}},
            {"address": "aws_pipes_pipe.a", "expressions": {"source": stream}},
            {"address": "aws_pipes_pipe.b", "expressions": {"source": stream}},
        ]}},
    });
    let diagnosis = diagnose(&terraform_plan::read(&plan, "plan.json").deployment);
    assert!(diagnosis.findings.iter().any(|it| it.problem.starts_with("1 mapping and 2 pipes read")));
}

/// A function in a subnet with an endpoint of DynamoDB.
fn in_network(group: &str, endpoint: &str) -> Vec<(&'static str, String)> {
    let function = "      Timeout: 60\n      VpcConfig: {SubnetIds: [!Ref Subnet], SecurityGroupIds: [!Ref Group]}\n";
    let resources = format!(
        "  Subnet: {{Type: AWS::EC2::Subnet}}\n  Group: {{Type: AWS::EC2::SecurityGroup, Properties: {{{group}}}}}\n  \
         Ends: {{Type: AWS::EC2::SecurityGroup, Properties: {{}}}}\n  Endpoint:\n    Type: AWS::EC2::VPCEndpoint\n    \
         Properties: {{ServiceName: !Sub \"com.amazonaws.${{AWS::Region}}.dynamodb\", {endpoint}}}\n  Queue:"
    );
    vec![("      Timeout: 60\n", function.to_owned()), ("  Queue:", resources)]
}

fn network_findings(group: &str, endpoint: &str, more: &str) -> (Vec<String>, Vec<String>) {
    let mut changes = in_network(group, endpoint);
    changes.push(("  Queue:", format!("{more}  Queue:")));
    let changes: Vec<(&str, &str)> = changes.iter().map(|(from, to)| (*from, to.as_str())).collect();
    evaluated("network-without-route", &changes)
}

const GATEWAY: &str = "VpcEndpointType: Gateway";
const INTERFACE: &str = "VpcEndpointType: Interface, SecurityGroupIds: [!GetAtt Ends.GroupId]";
const NO_TRAFFIC: &str = "{IpProtocol: icmp, FromPort: 252, ToPort: 86, CidrIp: 255.255.255.255/32}";

#[test]
fn the_security_groups_of_the_function_must_allow_its_requests() {
    let egress = |rules: &str| format!("SecurityGroupEgress: [{rules}]");
    for (group, finding) in [
        (String::new(), None),
        // As if it was not set: the rule that allows all remains.
        (egress(""), None),
        (egress("{IpProtocol: tcp, FromPort: 443, ToPort: 443, CidrIp: 0.0.0.0/0}"), None),
        (egress("{IpProtocol: tcp, FromPort: 0, ToPort: 1024, DestinationPrefixListId: pl-1}"), None),
        (egress("{IpProtocol: \"-1\", CidrIp: !ImportValue block}"), None),
        (egress(NO_TRAFFIC), Some("the security groups of the function allow no outbound traffic")),
        (
            egress("{IpProtocol: \"-1\", CidrIp: 127.0.0.1/32}"),
            Some("the security groups of the function allow no outbound traffic"),
        ),
        (
            egress("{IpProtocol: tcp, FromPort: 5432, ToPort: 5432, CidrIp: 10.0.0.0/16}"),
            Some("do not both allow port 443 for dynamodb"),
        ),
        // Endpoints of the gateway type have no security group.
        (
            egress("{IpProtocol: tcp, FromPort: 443, ToPort: 443, DestinationSecurityGroupId: !Ref Ends}"),
            Some("do not both allow port 443 for dynamodb"),
        ),
    ] {
        let (found, unchecked) = network_findings(&group, GATEWAY, "");
        match finding {
            Some(text) => assert!(found.len() == 1 && found[0].ends_with(text), "{group}: {found:?}"),
            None => assert_eq!((found, unchecked), (Vec::new(), Vec::new()), "{group}"),
        }
    }
    let added = "  Out: {Type: AWS::EC2::SecurityGroupEgress, Properties: {GroupId: !Ref Group, IpProtocol: tcp, \
                 FromPort: 443, ToPort: 443, CidrIp: 0.0.0.0/0}}\n";
    assert_eq!(network_findings(&egress(NO_TRAFFIC), GATEWAY, added), (Vec::new(), Vec::new()));
    let unknown = egress("{IpProtocol: !ImportValue protocol, CidrIp: 0.0.0.0/0}");
    let (found, unchecked) = network_findings(&unknown, GATEWAY, "");
    assert_eq!((found.len(), unchecked.len()), (0, 1), "{found:?} {unchecked:?}");
}

#[test]
fn the_security_group_of_an_interface_endpoint_must_let_the_function_in() {
    let ingress = |from: &str, port: u16| {
        format!(
            "  In: {{Type: AWS::EC2::SecurityGroupIngress, Properties: {{GroupId: !Ref Ends, IpProtocol: tcp, \
             FromPort: {port}, ToPort: {port}, {from}}}}}\n"
        )
    };
    let closed = "the security groups of the function and of the endpoints of the function's VPC do not both allow \
                  port 443 for dynamodb";
    let to_ends = "SecurityGroupEgress: [{IpProtocol: tcp, FromPort: 443, ToPort: 443, DestinationSecurityGroupId: \
                   !Ref Ends}]";
    for group in ["", to_ends] {
        for (more, is_open) in [
            (String::new(), false),
            (ingress("SourceSecurityGroupId: !Ref Ends", 443), false),
            (ingress("SourceSecurityGroupId: !Ref Group", 5432), false),
            (ingress("SourceSecurityGroupId: !GetAtt Group.GroupId", 443), true),
            (ingress("CidrIp: 10.0.0.0/16", 443), true),
        ] {
            let (found, unchecked) = network_findings(group, INTERFACE, &more);
            let expected = if is_open { Vec::new() } else { vec![closed.to_owned()] };
            assert_eq!((found, unchecked), (expected, Vec::new()), "{group} {more}");
        }
    }
    // The default group of the VPC is not part of the template.
    let (found, unchecked) = network_findings("", "VpcEndpointType: Interface", "");
    let reason = "an endpoint uses the default security group, which is not read";
    assert_eq!((found, unchecked), (Vec::new(), vec![reason.to_owned()]));
    // So it is for a function whose calls are not known.
    let mut changes = in_network("", "VpcEndpointType: Interface");
    changes.push(("REPLICA_TABLE:", "OTHER_NAME:".to_owned()));
    let changes: Vec<(&str, &str)> = changes.iter().map(|(from, to)| (*from, to.as_str())).collect();
    assert_eq!(evaluated("network-without-route", &changes), (Vec::new(), vec![reason.to_owned()]));
    // Another way out is enough.
    let nat = "  Nat: {Type: AWS::EC2::NatGateway}\n";
    assert_eq!(network_findings("", INTERFACE, nat), (Vec::new(), Vec::new()));
}
