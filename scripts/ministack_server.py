#!/usr/bin/env python3
"""Runs ministack, an AWS emulator, as scripts/story_deploy.py needs it.

    ministack_server.py PORT DECISIONS

The emulator checks every call against the policies of its caller, and each decision is written to the file DECISIONS as
a line of JSON. `GAPS` lists what the emulator lacks, each with a reason and a probe: the server does not start if the
emulator has learnt one of them, so that no entry outlives its reason. A gap is filled where the template or the story
depends on it; otherwise the story leaves it out.
"""

import inspect
import json
import os
import string
import sys
import threading
import time
import types


class Gap:
    """A thing that the emulator lacks: why it matters, `lacks` to find out if it still does, and `fill`."""

    def __init__(self, name, reason, lacks, fill=None):
        self.name = name
        self.reason = reason
        self.lacks = lacks
        self.fill = fill


# ---- functions in conditions ----


def lacks_functions_in_conditions():
    from ministack.services.cloudformation import engine

    first = {"Fn::Select": [0, {"Fn::Split": [":", {"Fn::Sub": "${Name}:none"}]}]}
    template = {"Conditions": {"IsName": {"Fn::Equals": [first, "name"]}}}
    try:
        return not engine._evaluate_conditions(template, {"Name": {"Value": "name"}})["IsName"]
    except (LookupError, ValueError):
        return True


def fill_functions_in_conditions():
    from ministack.services import cloudformation
    from ministack.services.cloudformation import engine

    evaluate = engine._evaluate_conditions

    def with_functions(template, parameters):
        def resolved(node):
            if isinstance(node, list):
                return [resolved(one) for one in node]
            if not isinstance(node, dict):
                return node
            if "Fn::Equals" in node:
                mappings = template.get("Mappings", {})
                value = lambda side: engine._resolve_refs(side, {}, parameters, {}, mappings, "", "")
                return {"Fn::Equals": [value(side) for side in node["Fn::Equals"]]}
            return {name: resolved(value) for name, value in node.items()}

        return evaluate(template | {"Conditions": resolved(template.get("Conditions", {}))}, parameters)

    for module in vars(cloudformation).values():
        if getattr(module, "_evaluate_conditions", None) is evaluate:
            module._evaluate_conditions = with_functions


# ---- transforms of nested templates ----


def lacks_nested_transforms():
    from ministack.services.cloudformation import provisioners

    return "_apply_transforms" not in inspect.getsource(provisioners._cfn_nested_stack_deploy)


def fill_nested_transforms():
    from ministack.services.cloudformation import engine

    parse = engine._parse_template
    # Stacks that are not nested have imported the function by its name, and transform its result.
    engine._parse_template = lambda body: engine._apply_transforms(parse(body))


# ---- updates of nested stacks ----


def lacks_nested_attributes():
    from ministack.services.cloudformation import provisioners

    return "Attributes" not in inspect.getsource(provisioners._cfn_nested_stack_deploy).split("_update_resource(")[1][:300]


def fill_nested_attributes():
    from ministack.services.cloudformation import _stacks, provisioners

    update = provisioners._update_resource

    def with_attributes(kind, physical_id, old, new, stack_name, logical_id=None, old_attrs=None):
        if old_attrs is None:
            resources = (_stacks.get(stack_name) or {}).get("_resources", {})
            old_attrs = resources.get(logical_id, {}).get("Attributes")
        return update(kind, physical_id, old, new, stack_name, logical_id, old_attrs)

    provisioners._update_resource = with_attributes


# ---- deletion of nested stacks ----


def lacks_nested_policies():
    from ministack.services.cloudformation import provisioners

    return "DeletionPolicy" not in inspect.getsource(provisioners._cfn_nested_stack_delete)


def fill_nested_policies():
    from ministack.services.cloudformation import _stacks, provisioners

    handler = provisioners._RESOURCE_HANDLERS["AWS::CloudFormation::Stack"]
    delete = handler["delete"]

    def with_policies(physical_id, properties):
        stack = _stacks.get(provisioners._nested_stack_lookup_name(physical_id)) or {}
        definitions = (stack.get("_template") or {}).get("Resources", {})
        for logical_id in list(stack.get("_resources", {})):
            if definitions.get(logical_id, {}).get("DeletionPolicy") in provisioners._RETAINING_POLICIES:
                del stack["_resources"][logical_id]
        delete(physical_id, properties)

    handler["delete"] = with_policies


# ---- alarms of metric math ----


def lacks_metric_math():
    from ministack.services.cloudformation import provisioners

    query = {"Id": "sum", "Expression": "1", "ReturnData": True}
    alarm = {"Metrics": [query], "ComparisonOperator": "GreaterThanThreshold", "Threshold": 0}
    try:
        provisioners._cw_metric_alarm_record("probe", alarm)
    except ValueError as error:
        return "metric math" in str(error)
    return False


def fill_metric_math():
    from ministack.services.cloudformation import provisioners

    record = provisioners._cw_metric_alarm_record

    def with_first_metric(name, properties):
        if properties.get("Metrics"):
            metric = next(query["MetricStat"] for query in properties["Metrics"] if "MetricStat" in query)
            properties = {name: value for name, value in properties.items() if name != "Metrics"}
            properties |= {"Namespace": metric["Metric"]["Namespace"], "MetricName": metric["Metric"]["MetricName"]}
        return record(name, properties)

    provisioners._cw_metric_alarm_record = with_first_metric


# ---- composite alarms ----

COMPOSITE = "AWS::CloudWatch::CompositeAlarm"


def lacks_composite_alarms():
    from ministack.services.cloudformation import provisioners

    return COMPOSITE not in provisioners._RESOURCE_HANDLERS


def fill_composite_alarms():
    from ministack.services.cloudformation import provisioners

    def created(logical_id, properties, stack_name):
        name = properties.get("AlarmName") or f"{stack_name}-{logical_id}"
        account, region = provisioners.get_account_id(), provisioners.get_region()
        return name, {"Arn": f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}"}

    provisioners._RESOURCE_HANDLERS[COMPOSITE] = {"create": created, "delete": lambda name, properties: None}


# ---- TTL of tables in templates ----


def lacks_ttl_in_templates():
    from ministack.services import dynamodb
    from ministack.services.cloudformation import provisioners

    key = {
        "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    ttl = {"AttributeName": "t", "Enabled": True}
    name, _ = provisioners._ddb_create("Probe", {**key, "TimeToLiveSpecification": ttl}, "probe")
    is_missing = name not in dynamodb._ttl_settings
    provisioners._ddb_delete(name, {})
    return is_missing


def fill_ttl_in_templates():
    from ministack.services import dynamodb
    from ministack.services.cloudformation import provisioners

    handlers = provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]
    create = handlers["create"]

    def with_ttl(logical_id, properties, stack_name):
        created = create(logical_id, properties, stack_name)
        ttl = properties.get("TimeToLiveSpecification")
        if ttl:
            is_enabled = str(ttl["Enabled"]).lower() == "true"
            specification = {"AttributeName": ttl["AttributeName"], "Enabled": is_enabled}
            status, _, body = dynamodb._update_ttl({"TableName": created[0], "TimeToLiveSpecification": specification})
            if status != 200:
                raise ValueError(f"TimeToLiveSpecification of {created[0]}: {body!r}")
        return created

    handlers["create"] = with_ttl


# ---- removals by TTL in the stream ----


class Reaper(threading.Thread):
    """The emulator's own loop that removes expired items, at a shorter interval; its removals are recorded."""

    def __init__(self, remove, interval):
        super().__init__(daemon=True, name="ttl")
        self.remove = remove
        self.interval = interval

    def run(self):
        from ministack.services import dynamodb

        # The loop of ministack, whose module-level names are replaced in this copy alone.
        names = dynamodb.__dict__ | {
            "_remove_item": self.remove,
            "time": types.SimpleNamespace(time=time.time, sleep=lambda _: self.wait()),
        }
        types.FunctionType(dynamodb._ttl_reaper.__code__, names)()

    def wait(self):
        time.sleep(self.interval)


class Once(Reaper):
    """One pass of the emulator's loop."""

    class Passed(BaseException):
        pass

    def __init__(self, remove):
        super().__init__(remove, 0)
        self.passes = 0

    def wait(self):
        self.passes += 1
        if self.passes > 1:
            raise Once.Passed

    def run(self):
        try:
            super().run()
        except Once.Passed:
            pass


def lacks_ttl_records():
    from ministack.services import dynamodb
    from ministack.services.cloudformation import provisioners

    properties = {
        "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": {"StreamViewType": "NEW_AND_OLD_IMAGES"},
    }
    name, _ = provisioners._ddb_create("Probe", properties, "probe")
    dynamodb._update_ttl({"TableName": name, "TimeToLiveSpecification": {"AttributeName": "t", "Enabled": True}})
    dynamodb._put_item({"TableName": name, "Item": {"k": {"S": "k"}, "t": {"N": "1"}}})
    Once(dynamodb._remove_item).run()
    if dynamodb._tables[name]["items"]:
        sys.exit("the emulator's loop removes no expired item any more: adapt Reaper in scripts/ministack_server.py")
    records = [record["eventName"] for record in dynamodb._stream_records[name]]
    dynamodb._delete_table({"TableName": name})
    return records == ["INSERT"]


def fill_ttl_records():
    from ministack.core import responses
    from ministack.services import dynamodb

    def removed(table, *key):
        old = dynamodb._remove_item(table, *key)
        # The streams are those of the account and the Region of the caller, and this thread has no caller.
        _, _, _, region, account, _ = table["TableArn"].split(":", 5)
        responses.set_request_region(region)
        responses.set_request_account_id(account)
        stream = table.get("StreamSpecification") or {}
        if old is not None and stream.get("StreamEnabled"):
            record = dynamodb._build_change_record(table, "REMOVE", old, None, stream["StreamViewType"])
            record["userIdentity"] = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
            dynamodb._stream_records.setdefault(table["TableName"], []).append(record)
            dynamodb.esm_wake.set()
        return old

    Reaper(removed, 1).start()


# ---- TLS ----


def lacks_tls():
    from ministack.core import iam_evaluator

    iam_evaluator.pin_request_origin("127.0.0.1", False)
    return iam_evaluator._request_origin.get() == ("127.0.0.1", False)


def fill_tls():
    from ministack import app

    pin = app.pin_request_origin
    app.pin_request_origin = lambda address, _: pin(address, True)


# ---- generated secrets ----


def lacks_exclude_punctuation():
    from ministack.services.cloudformation import provisioners

    secret = {"GenerateSecretString": {"PasswordLength": 4096, "ExcludePunctuation": True}}
    return not set(provisioners._sm_secret_string(secret)).isdisjoint(string.punctuation)


def fill_exclude_punctuation():
    from ministack.services.cloudformation import provisioners

    secret_string = provisioners._sm_secret_string

    def without_punctuation(properties):
        rules = properties.get("GenerateSecretString") or {}
        if str(rules.get("ExcludePunctuation")).lower() == "true":
            properties = properties | {"GenerateSecretString": rules | {"ExcludeCharacters": string.punctuation}}
        return secret_string(properties)

    provisioners._sm_secret_string = without_punctuation


# ---- what the story leaves out ----


def lacks_partial_batches():
    from ministack.services import lambda_svc

    return "batchItemFailures" not in inspect.getsource(lambda_svc._poll_dynamodb_streams)


def lacks_bucket_destinations():
    from ministack.services import lambda_svc

    return '"s3"' not in inspect.getsource(lambda_svc._send_ddb_stream_failure_record)


GAPS = [
    Gap(
        "Split and Sub in conditions",
        "they are compared unresolved, as are pseudo parameters; the key types are taken from such conditions",
        lacks_functions_in_conditions,
        fill_functions_in_conditions,
    ),
    Gap(
        "transforms of nested templates",
        "a nested template with SAM's resources is refused; template.yaml contains infra/replication.yaml",
        lacks_nested_transforms,
        fill_nested_transforms,
    ),
    Gap(
        "attributes of unchanged resources in an updated nested stack",
        "GetAtt finds none of them, so that every update of a nested stack fails",
        lacks_nested_attributes,
        fill_nested_attributes,
    ),
    Gap(
        "deletion policies in nested stacks",
        "the resources of a deleted nested stack are deleted in spite of them; the replica and the buckets are in one",
        lacks_nested_policies,
        fill_nested_policies,
    ),
    Gap(
        "alarms of metric math",
        "a template with such an alarm is refused; the alarm gets the first of its metrics",
        lacks_metric_math,
        fill_metric_math,
    ),
    Gap(
        "composite alarms",
        "a template with one is refused; the resource exists by name only",
        lacks_composite_alarms,
        fill_composite_alarms,
    ),
    Gap(
        "TimeToLiveSpecification in templates",
        "it is ignored, so that nothing in the deployed tables expires",
        lacks_ttl_in_templates,
        fill_ttl_in_templates,
    ),
    Gap(
        "removals by TTL in streams",
        "expired items vanish without a record, and once a minute; the archiver reads these records",
        lacks_ttl_records,
        fill_ttl_records,
    ),
    Gap(
        "TLS that the functions trust",
        "the certificate is signed by the emulator itself; the buckets' policies deny calls without TLS",
        lacks_tls,
        fill_tls,
    ),
    Gap(
        "ExcludePunctuation of generated secrets",
        "it is ignored in templates; the API accepts a cursor secret of letters and digits only",
        lacks_exclude_punctuation,
        fill_exclude_punctuation,
    ),
    Gap(
        "partial failures of stream batches",
        "batchItemFailures is ignored and the batch counts as delivered; the story lets no sink fail",
        lacks_partial_batches,
    ),
    Gap(
        "buckets as failure destinations of stream mappings",
        "discarded batches are not written; the story redrives quarantined records, which the replicator writes",
        lacks_bucket_destinations,
    ),
]


def record_decisions(path):
    """Writes the decision on each call that is checked, with the caller, the action and the resource."""
    from ministack.core import iam_evaluator

    enforce = iam_evaluator.enforce
    file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115, open as long as the server runs
    lock = threading.Lock()

    def recorded(access_key, action, service, region, resource_arn="*", **options):
        denied = enforce(access_key, action, service, region, resource_arn=resource_arn, **options)
        caller = "root" if iam_evaluator.is_root_access_key(access_key) else iam_evaluator.caller_arn()
        line = {"caller": caller, "action": action, "resource": resource_arn, "denied": denied and repr(denied)}
        with lock:
            print(json.dumps(line), file=file)
        return denied

    iam_evaluator.enforce = recorded


def main(port, decisions):
    os.environ |= {
        "GATEWAY_PORT": port,
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AUTH": "true",
        # Listens on a port of its own otherwise.
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": os.environ.get("MINISTACK_LOG_LEVEL", "INFO"),
    }
    sys.argv = ["ministack"]
    from ministack import app

    for gap in GAPS:
        if not gap.lacks():
            sys.exit(f"the emulator has learnt: {gap.name}. Remove it from GAPS in scripts/ministack_server.py")
        if gap.fill:
            gap.fill()
        print(f"gap {'filled' if gap.fill else 'left out'}: {gap.name}: {gap.reason}", flush=True)
    record_decisions(decisions)
    app.main()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: ministack_server.py PORT DECISIONS")
    main(*sys.argv[1:])
