"""What the contract says in words alone, because JSON Schema cannot: cases are bent to it before they are sent.

Only what is valid by schema is bent. A case that was made wrong on purpose stays as wrong as it is.
"""

import itertools
import re
import time

import requests
import schemathesis

# DynamoDB's numbers, and how far an expiry may lie from now.
SMALLEST, LARGEST, DIGITS = 1e-130, 1e125, 38
YEAR = 31_557_600

# One run, one sequence: with a fixed seed the keys repeat, and each request has its own.
NUMBERS = itertools.count()


# Of a header's text the generator's coverage phase makes letters and digits alone: where the pattern demands a quote it
# sends "0" beside the parameter that it is about, and calls the case valid.
VALID = {"if-match": '"1", "2"', "if-none-match": 'W/"1"'}


# What search answers comes by the stream, a moment after the write (docs/GUARANTEES.md: no bound on the lag is promised). A
# walk that has just created a record waits until it has arrived, also behind what the phases before have written.
ARRIVAL_SECONDS = 10


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
            # A key names one request; the generator likes to give one key to many.
            sent[name] = f"case-{next(NUMBERS)}"
    if is_positive and isinstance(query, dict):
        bend_query(case.path, query)
    if is_positive and isinstance(body, dict):
        bend_body(body)


def bend_query(path, query):
    # No schema tells a cursor from another text: the suite's own tests do.
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
    # To JSON Schema 7.0 is an integer. The API wants seconds spelled as such.
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
    """The nearest JSON that DynamoDB can hold."""
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
