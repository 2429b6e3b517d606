"""Schemathesis hooks for rules of the API that JSON Schema cannot express: cases are adapted to them before they are
sent.

Only cases that are valid by the schema are adapted. A case that is invalid on purpose is sent unchanged, except that it
also gets an idempotency key of its own.
"""

import itertools
import re
import time

import requests
import schemathesis

# The limits of DynamoDB's numbers, and the seconds of a year for the maximum expiry.
SMALLEST, LARGEST, DIGITS = 1e-130, 1e125, 38
YEAR = 31_557_600

# Numbers for idempotency keys: with a fixed seed the generated keys repeat, but each request requires its own.
NUMBERS = itertools.count()


# The generator's coverage phase creates header values of letters and digits only. For a pattern that requires a quote,
# it sends "0" in addition to the parameter under test, and expects the case to be valid.
VALID = {"if-match": '"1", "2"', "if-none-match": 'W/"1"'}


# Search results are replicated through the stream after the write (docs/GUARANTEES.md guarantees no bound on the lag).
# A stateful sequence that has just created a record waits until it has arrived, so that the check sees responses with
# contents. A record that the sequence has deleted since does not arrive.
ARRIVAL_SECONDS = 5


def wait_for_arrival(case, kwargs):
    request = case.as_transport_kwargs(headers=kwargs.get("headers"))
    until = time.monotonic() + ARRIVAL_SECONDS
    while requests.get(request["url"], headers=request["headers"], timeout=30).status_code == 404:
        if time.monotonic() > until:
            return
        time.sleep(0.1)


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.path == "/users/{user_id}/summary" and case.meta is not None and case.meta.phase.name == "stateful":
        wait_for_arrival(case, kwargs)
    query, headers, body = case.query, case.headers, case.body
    is_positive = case.meta is not None and case.meta.generation.mode.is_positive
    for parameter in case.operation.definition.raw.get("parameters", []):
        sent = {"query": query, "header": headers}.get(parameter["in"])
        name, pattern = parameter["name"], parameter["schema"].get("pattern")
        if not pattern or not sent or not isinstance(sent.get(name), str):
            continue
        if is_positive and name in VALID and not re.search(pattern, sent[name]):
            sent[name] = VALID[name]
        if name == "idempotency-key" and re.search(pattern, sent[name]):
            # A key identifies one request, but the generator uses one key for many.
            sent[name] = f"case-{next(NUMBERS)}"
    if is_positive and isinstance(query, dict):
        bend_query(case.path, query)
    if is_positive and isinstance(body, dict):
        bend_body(body)


def bend_query(path, query):
    # A schema cannot describe a valid cursor; the tests of the project cover cursors.
    query.pop("cursor", None)
    if path == "/users":
        if "email" in query:
            query.pop("segment", None)
            query.pop("segments", None)
        else:
            query.pop("order", None)
        segment, segments = whole(query.get("segment")), whole(query.get("segments"))
        if ("segment" in query) != ("segments" in query):
            query.pop("segment", None)
            query.pop("segments", None)
        elif segment is not None and segments is not None and 1 <= segments <= 1000 and segment >= segments:
            query["segment"] = segment % segments
    since, until = whole(query.get("from")), whole(query.get("to"))
    if since is not None and until is not None and since > until:
        query["from"], query["to"] = query["to"], query["from"]


def whole(value):
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None


def bend_body(body):
    # JSON Schema accepts 7.0 as an integer; the API requires seconds without a fraction part.
    keys = body["keys"] if isinstance(body.get("keys"), list) else []
    for part in [body, *(key for key in keys if isinstance(key, dict))]:
        for name in ("timestamp", "expires_at"):
            if isinstance(part.get(name), float) and part[name].is_integer():
                part[name] = int(part[name])
    expiry = body.get("expires_at")
    if isinstance(expiry, int) and not isinstance(expiry, bool) and 0 <= expiry <= 253_402_300_799:
        body["expires_at"] = int(time.time()) + 60 + expiry % (40 * YEAR)
    if isinstance(body.get("attributes"), dict):
        body["attributes"] = held(body["attributes"], 31)


def held(value, levels):
    """Returns the value with every part that DynamoDB cannot store replaced."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if len(str(abs(value)).rstrip("0")) <= DIGITS and abs(value) < 10**125 else value % 10**DIGITS
    if isinstance(value, float):
        return value if value == 0 or SMALLEST <= abs(value) <= LARGEST else 0.5
    if levels == 0:
        return None
    if isinstance(value, list):
        return [held(item, levels - 1) for item in value]
    return {name or "_": held(item, levels - 1) for name, item in value.items()}
