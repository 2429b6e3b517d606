#!/usr/bin/env python3
"""Uses the console of `millrace up` in a browser, as a person does: the first visit, a change that arrives, a poison record
that is redriven, a replica that is broken and repaired, old deliveries, and a key that expires and is restored; with the
keyboard, without JavaScript, with bad input, from other sites, with markup in all data, and while servers are down. Then
`millrace console` of a deployed stack, in an account whose stores are those of this machine, also with expired credentials.

Screenshots of every page at two widths are written to target/screenshots. An argument selects stories by a part of their names.
"""

import contextlib
import datetime
import html
import http.client
import http.server
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from browser import Visitor, check_look, chromium, print_all
from story import MILLRACE, ROOT, Local, Program, check, eventually

PAGES = {
    "live": "/",
    "key": "/key",
    "tables": "/tables",
    "archive": "/archive",
    "break-it": "/break",
    "quarantine": "/quarantine",
    "tasks": "/tasks",
    "doctor": "/doctor",
    "api": "/api",
}
CONTROLS = "a, button, input:not([type=hidden]), select, textarea, summary"
FIRST_PAGE_BYTES = 100_000
MOST_CLICKS = 4
# The console uses the DuckDB of this environment.
PATH = {"PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])}
# A name that belongs to another site, and that the browser resolves to this machine.
FOREIGN_HOST = "evil.example"
# A text that is code if a page does not escape it, as an element, in an attribute and in a script.
MARKUP = (
    "<script>window.harmed=1</script><img src=x onerror=window.harmed=1>"
    "\"' onfocus=window.harmed=1 autofocus x='</script>&lt;"
)
MARKUP_TABLE = {
    "TableName": "Markup",
    "TableArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/Markup",
    "TableStatus": "ACTIVE",
    "AttributeDefinitions": [{"AttributeName": MARKUP, "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": MARKUP, "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}


def key_of(user_id, timestamp):
    return {"user_id": {"S": user_id}, "timestamp": {"N": str(timestamp)}}


def user(user_id, timestamp=1, **attributes):
    """Returns an item of the users service."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        **key_of(user_id, timestamp),
        "name": {"S": user_id.capitalize()},
        "status": {"S": "active"},
        "attributes": {"M": {}},
        "version": {"N": str(timestamp)},
        "created_at": {"S": now},
        "updated_at": {"S": now},
        **attributes,
    }


def put(local, item, table="Users"):
    local.dynamodb.put_item(TableName=table, Item=item)


def key_address(key):
    return "/key?" + urllib.parse.urlencode({"key": json.dumps(key)})


def shows(visitor, what, text, selector="main", seconds=30):
    """Waits until a part of the page contains a text, without loading the page again."""
    part = visitor.page.locator(selector)
    return eventually(what, lambda: text in part.inner_text(), seconds)


def items(local, table):
    return local.dynamodb.scan(TableName=table, ConsistentRead=True)["Items"]


def canonical(found):
    """Returns items in a fixed order of items and attributes."""
    return sorted((sorted(item.items()) for item in found), key=repr)


def live(found):
    """Returns the items that are not tombstones, without their revisions, in canonical order."""
    own = [item for item in found if "_tombstone_expires_at" not in item]
    return canonical({name: value for name, value in item.items() if name != "_rev"} for item in own)


def applied(visitor):
    """Returns the number of changes that were applied to the replica table."""
    return int(visitor.page.locator("#totals tr", has_text="dynamodb").locator("td").nth(1).inner_text())


def first_visit(browser, local):
    with Visitor(browser, local.console) as visitor:
        visitor.open("/")
        check("the first page is Live", visitor.page.get_by_role("heading", level=1).inner_text() == "Live")
        check("it says what to do", "No change has arrived yet. Write an item to Users" in visitor.text())
        [timing] = visitor.page.evaluate("performance.getEntriesByType('navigation').map((one) => one.toJSON())")
        answered, shown = timing["responseEnd"] - timing["requestStart"], timing["loadEventEnd"]
        print(f"  took    {shown:.0f} ms until the page is shown, {answered:.0f} ms of them for the response of the server")
        check("it is shown within 2 s", shown < 2000)
        visitor.page.locator(".uplot").last.wait_for()
        # The stream of events does not end.
        loaded = [one for one in visitor.requests if one.resource_type != "eventsource"]
        sizes = [one.sizes() for one in loaded if one.response().finished() is None]
        total = sum(one["responseBodySize"] + one["responseHeadersSize"] for one in sizes)
        what = f"it has less than 100 KB in all ({total / 1000:.0f} KB in {len(sizes)} requests)"
        check(what, 20_000 < total < FIRST_PAGE_BYTES)
        names = visitor.page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts()
        for name in names:
            visitor.go(name)
            visitor.page.wait_for_load_state()
            current = visitor.page.get_by_role("navigation", name="Pages").locator("[aria-current=page]").inner_text()
            heading = visitor.page.get_by_role("heading", level=1).inner_text()
            check(f"the navigation leads to {name}", (current, heading) == (name, name))
            sent = visitor.page.evaluate(
                "performance.getEntriesByType('resource').filter((one) => one.name.includes('/assets/') && one.transferSize > 0).length"
            )
            check("and loads no script or style again", sent == 0)
        visitor.open("/no-such-page", 404)
        check("a wrong address is explained", "There is no page at this address." in visitor.alert())
        visitor.check_unharmed("no page has an error in the browser's console or a request to another host")


def change_arrives(browser, local):
    with Visitor(browser, local.console) as visitor:
        visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
        visitor.open("/api")
        visitor.click("button", "Copy: ada")
        shows(visitor, "a token is copied from the page API", "Copied.")
        token = visitor.page.evaluate("navigator.clipboard.readText()")
        visitor.open("/")
        body = {"user_id": "ada", "name": "Ada Byron", "email": "ada@example.com"}
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{local.api}/users", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as response:
            check("it is accepted by the API", response.status == 201)
        row = visitor.page.locator("#rows tr").first
        eventually("the change appears on the open page", lambda: visitor.page.locator("#rows tr").count() > 0)
        check("with its kind and its key", "INSERT" in row.inner_text() and '"ada"' in row.inner_text())
        verdicts = [f"{replica}: applied" for replica in ("dynamodb", "postgres", "cache")]
        check("and the verdict of each replica", all(verdict in row.inner_text() for verdict in verdicts))
        item = user("grace", 1, email={"S": "grace@example.com"})
        put(local, item)
        put(local, {**item, "name": {"S": "Grace Hopper"}})
        shows(visitor, "an update names the changed attribute", "MODIFY\tname\t", "#rows tr >> nth=0")
        local.dynamodb.delete_item(TableName="Users", Key=key_of("grace", 1))
        shows(visitor, "a deletion becomes a tombstone", "dynamodb: tombstone", "#rows tr >> nth=0")
        shows(visitor, "the counters follow", "tombstone", "#totals")
        visitor.click("button", "Pause")
        rows, before = visitor.page.locator("#rows tr").count(), applied(visitor)
        put(local, user("paused"))
        eventually("the counters follow while the timeline is paused", lambda: applied(visitor) > before)
        check("the paused timeline stays", visitor.page.locator("#rows tr").count() == rows)
        visitor.click("button", "Continue")
        visitor.page.get_by_label("Key contains").fill("grace")
        visitor.page.get_by_label("Verdict").select_option("tombstone")
        visitor.click("button", "Filter")
        check("a filter by key and verdict leaves one change", visitor.page.locator("#rows tr").count() == 1)
        visitor.page.locator("#rows a").first.click()
        check("its key leads to the page Key", visitor.page.get_by_role("heading", level=1).inner_text() == "Key")
        check("which shows the tombstone of each replica", visitor.text().count("Stores a tombstone") == 2)
        check("and its history", visitor.region("History").locator("tbody tr").count() == 3)
        visitor.check_unharmed("nothing went wrong in the browser")


def poison_record(browser, local):
    poison = user("poison", 1, _rev={"S": "mine"})
    with Visitor(browser, local.console) as visitor:
        visitor.open("/")
        put(local, poison)
        shows(visitor, "a poison record is quarantined on the open page", "dynamodb: quarantined", "#rows tr >> nth=0")
        visitor.clicks = 0
        visitor.go("Quarantine")
        found = visitor.page.locator("section", has_text="replica: dynamodb").last
        check("the page Quarantine shows the reason", "_rev" in found.locator("strong").inner_text())
        check("and the key", '"poison"' in found.inner_text())
        # The owner corrects the item.
        del poison["_rev"]
        put(local, poison)
        visitor.click("button", "Dry run: all objects")
        visitor.page.get_by_role("button", name="Run redrive for real").wait_for()
        check("the dry run has written nothing", "This was a dry run: nothing was written." in visitor.text())
        visitor.click("button", "Run redrive for real")
        shows(visitor, "the redrive ends", "done", "#run p >> nth=0")
        check("without problems", "0 differences, 0 problems" in visitor.text())
        check(f"it took {visitor.clicks} clicks", visitor.clicks <= MOST_CLICKS)
        visitor.open("/quarantine")
        check("the failure bucket is empty", "The failure bucket is empty." in visitor.text())
        visitor.open(key_address(key_of("poison", 1)))
        check("the item is in every replica", "Every replica is equal to the source." in visitor.text())
        visitor.check_unharmed("nothing went wrong in the browser")


def broken_replica(browser, local):
    with Visitor(browser, local.console) as visitor:
        visitor.open("/break")
        light = lambda what, color: shows(visitor, what, f"Verify: {color}", "#light")
        light("the light is green", "green")
        for fault in ("refuse", "cut-off"):
            replica = visitor.region("replica dynamodb")
            replica.get_by_label("State").select_option(fault)
            visitor.click("button", "Set", replica)
            visitor.click("button", "Write 10 items, twice")
            light(f"the replica is broken ({fault}): the light becomes red", "red")
            check("it names a key and the replica", '"console-' in visitor.page.locator("#light").inner_text())
            visitor.click("button", "Turn every switch off")
            light("repaired: it becomes green", "green")
        visitor.click("button", "Take S3 down")
        check("S3 is down", "State: down" in visitor.region("S3").inner_text())
        visitor.click("button", "Repair S3")
        check("and works again", "State: works" in visitor.region("S3").inner_text())
        visitor.click("button", "Drop the replica")
        light("the replica is dropped: the light becomes red", "red")
        visitor.open("/tasks")
        visitor.page.locator("summary", has_text=re.compile("^repair:")).click()
        task = visitor.page.locator("details", has_text="Run repair")
        task.get_by_label("apply").check()
        visitor.click("button", "Run repair", task)
        shows(visitor, "the task repair ends", "done", "#run p >> nth=0")
        visitor.open("/break")
        light("and the light is green", "green")
        visitor.click("button", "Kill the replicator in its next batch")
        light("after a kill in the middle of a batch, too", "green")
        visitor.check_unharmed("nothing went wrong in the browser")


def old_delivery(browser, local):
    """Guarantee 2, as docs/console.md describes it."""
    started = time.monotonic()
    with Visitor(browser, local.console) as visitor:
        visitor.open("/")
        visitor.go("Break it")
        visitor.click("button", "Write 10 items, twice")
        shows(visitor, "10 items are written, and the light is green", "Verify: green", "#light")
        are_equal = lambda: live(items(local, "UsersReplica")) == live(items(local, "Users"))
        eventually("the replica has them", are_equal)
        before = items(local, "UsersReplica")
        for action in ("Deliver the last 10 records again", "Deliver an outdated record"):
            visitor.click("button", action)
            check(f"{action}: the page says what happened", "The page Live shows the verdict" in visitor.text())
            counted = visitor.region("Deliveries").locator("tr", has_text="dynamodb").locator("td")
            check("its counters show that nothing was applied", counted.first.inner_text() == "0")
            counts = [int(one) for one in counted.all_inner_texts()]
            check("but that the records were delivered", sum(counts) == (10 if "last 10" in action else 1))
            check("and the guarantee is named", "Guarantee 2: a stale delivery changes nothing." in visitor.text())
        colors = set()
        for _ in range(20):
            colors.add(visitor.page.locator("#light").inner_text()[:13])
            visitor.page.wait_for_timeout(150)
        check("the light stays green", colors == {"Verify: green"})
        check("an old delivery changes nothing in the replica", canonical(items(local, "UsersReplica")) == canonical(before))
        visitor.go("Live")
        rows = visitor.page.locator("#rows").inner_text()
        check("the page Live shows duplicate and stale", "dynamodb: duplicate" in rows and "dynamodb: stale" in rows)
        check("within two minutes", time.monotonic() - started < 120)
        visitor.check_unharmed("nothing went wrong in the browser")


def expired_key(browser, local):
    key = key_of("expired", 1)
    with Visitor(browser, local.console) as visitor:
        put(local, user("expired"))
        visitor.open("/")
        shows(visitor, "an item is written", '"expired"', "#rows")
        visitor.page.locator("#rows a", has_text='"expired"').first.click()
        check("it is in every replica", "Every replica is equal to the source." in visitor.text())
        put(local, user("expired", expires_at={"N": str(int(time.time()) - 60)}))
        visitor.open("/")
        shows(visitor, "TTL removes it, and it is archived", "archiver: applied", "#rows")
        visitor.open(key_address(key))
        check("the source has no item", "No item." in visitor.region("source").inner_text())
        check("the replica knows that it expired", "TTL removed" in visitor.region("replica dynamodb").inner_text())
        check("the archive has it", '"expired"' in visitor.region("archive").inner_text())
        visitor.go("Archive")
        visitor.page.locator("ul.columns a").first.click()
        objects = visitor.region("Objects").locator("tbody a")
        for index in range(objects.count()):
            objects.nth(index).click()
            if '"expired"' in visitor.region("Rows").inner_text():
                break
            visitor.page.go_back()
        visitor.page.get_by_role("link", name=re.compile('Restore .*"expired"')).click()
        key_field = visitor.page.get_by_label("Key in DynamoDB JSON")
        check("the row leads to the restore of its key", '"expired"' in key_field.input_value())
        visitor.page.get_by_label("or never").check()
        visitor.click("button", "Dry run")
        visitor.page.get_by_role("button", name="Run restore for real").wait_for()
        check("the dry run reports the item", '"expired"' in visitor.text() and "would_restore" in visitor.text())
        visitor.click("button", "Run restore for real")
        shows(visitor, "it is restored", "done", "#run p >> nth=0")
        visitor.open(key_address(key))
        check("the source has it again", '"expired"' in visitor.region("source").inner_text())

        def is_equal():
            visitor.open(key_address(key))
            return "Every replica is equal to the source." in visitor.text()

        eventually("and every replica, too", is_equal)
        visitor.open("/archive")
        visitor.click("button", "Run the query")
        check("DuckDB finds the row", "expired" in visitor.region("Rows of the query").inner_text())
        visitor.expected.add(f"{local.console}/archive/query")
        visitor.page.get_by_label("Query in DuckDB's SQL").fill("SELECT nothing FROM nowhere")
        visitor.click("button", "Run the query")
        check("an invalid query is explained", "nowhere" in visitor.alert())
        visitor.check_unharmed("nothing went wrong in the browser")


class ForeignSite(http.server.ThreadingHTTPServer):
    """A web server of another origin, whose page sends the form of a console."""

    daemon_threads = True

    def __init__(self, form):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(form.encode())

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def foreign_site(browser, local):
    port = local.console.rsplit(":", 1)[1]
    with Visitor(browser, local.console) as visitor:
        visitor.open("/break")
        token = visitor.page.locator("input[name=token]").first.input_value()
    before = local.dynamodb.scan(TableName="Users", Select="COUNT")["Count"]
    form = f"""<!doctype html><title>Foreign</title><form method=post action={local.console}/break>
        <input name=token value={token}><input name=action value=poison><button>Go</button></form>"""
    context = browser.new_context()
    page = context.new_page()
    with ForeignSite(form) as site:
        for host in ("127.0.0.1", FOREIGN_HOST):
            page.goto(f"http://{host}:{site.server_port}/")
            with page.expect_response(f"{local.console}/break") as response:
                page.get_by_role("button").click()
            check(f"a form of {host} on another port is refused, even with the token", response.value.status == 403)
            check("and the response says why", "does not come from a page of the console" in page.inner_text("body"))
        read = page.goto(f"http://{host}:{site.server_port}/") and page.evaluate(
            "(url) => fetch(url).then((response) => response.text(), () => null)", f"{local.console}/"
        )
        check("a script of another site reads no page", read is None)
        page.set_content(f"<iframe src={local.console}/></iframe>")
        page.wait_for_timeout(500)
        check("no other site frames the console", "Every change" not in page.frames[-1].content())
        site.shutdown()
    response = page.goto(f"http://{FOREIGN_HOST}:{port}/")
    check("a name that another site gives to this machine is refused", response.status == 403)
    check("and the response has the right address", f"open the console as {local.console}" in page.inner_text("body"))
    context.close()
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        check(f"Host {host} is accepted", status(local.console, {"Host": host}) == 200)
    for host in ("127.0.0.1", f"{FOREIGN_HOST}:{port}", "127.0.0.1:1"):
        check(f"Host {host} is refused", status(local.console, {"Host": host}) == 403)
    sent = urllib.parse.urlencode({"token": token, "action": "poison"}).encode()
    check("a request without Sec-Fetch-Site is refused", status(f"{local.console}/break", {}, sent) == 403)
    sent = urllib.parse.urlencode({"token": "other", "action": "poison"}).encode()
    check("so is another token", status(f"{local.console}/break", {"Sec-Fetch-Site": "same-origin"}, sent) == 403)
    check("nothing was written", local.dynamodb.scan(TableName="Users", Select="COUNT")["Count"] == before)


def status(url, headers, body=None):
    """Returns the status of a request that is sent without a browser."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as response:
            return response.status
    except urllib.error.HTTPError as refused:
        return refused.code


def bad_input(browser, local):
    put(local, user("huge", notes={"S": "x" * 390_000}))
    with Visitor(browser, local.console) as visitor:
        visitor.open("/key")
        visitor.expected.add(f"{local.console}/key?key=ada")
        visitor.page.get_by_role("textbox").fill("ada")
        visitor.click("button", "Show")
        check("a key that is not JSON is named, with an example", "ada" in visitor.alert() and '"user_id"' in visitor.text())
        check("and stays in its field", visitor.page.get_by_role("textbox").input_value() == "ada")
        cases = [
            (key_address({"user_id": {"S": "ada"}}), 400, "timestamp"),
            ("/?verdict=wrong", 400, 'unknown verdict "wrong"'),
            ("/tables?table=Gone", 404, "Gone"),
            ("/tables?table=Users&index=Gone", 400, "Gone"),
            ("/tables?table=Users&partition=ada&condition=wrong", 400, 'unknown condition "wrong"'),
            ("/tables/item?table=Users&key=ada", 400, "ada"),
            ("/archive?skip=many", 400, 'skip: "many" is not a number'),
            ("/archive/day?day=yesterday", 400, 'day: "yesterday" is not a date'),
            ("/archive/object?object=elsewhere", 400, "elsewhere"),
            ("/tasks/runs/none", 404, "There is no run of this ID"),
        ]
        for path, code, text in cases:
            visitor.open(path, code)
            check(f"{urllib.parse.unquote(path)[:60]} is explained", text in visitor.alert())
            check("with a way on", visitor.page.locator("main a, main form").count() > 0)
        visitor.expected.add(f"{local.console}/tasks/verify")
        visitor.open("/tasks")
        visitor.page.locator("summary", has_text=re.compile("^verify:")).click()
        task = visitor.page.locator("details", has_text="Run verify")
        task.get_by_label("recheck-after-seconds").fill("soon")
        visitor.click("button", "Run verify", task)
        check("an invalid field of a task is named", "soon" in visitor.alert() and "recheck-after-seconds" in visitor.alert())
        visitor.expected.add(f"{local.console}/tables/item")
        visitor.open("/tables/item?table=Users")
        visitor.page.get_by_role("textbox").fill('{"user_id":')
        visitor.click("button", "Create")
        check("an item that is not JSON is explained", visitor.alert() != "")
        check("and its text is kept", visitor.page.get_by_role("textbox").input_value() == '{"user_id":')
        visitor.expected.add(f"{local.console}/tables/import")
        visitor.open("/tables")
        visitor.page.get_by_label("File or folder on this machine").fill("/no/such/file")
        visitor.click("button", "Import into Users")
        check("an import of a file that does not exist names it", "/no/such/file" in visitor.alert())
        visitor.open(key_address(key_of("huge", 1)))
        check("an item of 390 KB is cut, and the page says so", "of 390" in visitor.region("source").inner_text())
        check("in a page of less than 500 KB", len(visitor.page.content()) < 500_000)
        local.dynamodb.delete_item(TableName="Users", Key=key_of("huge", 1))
        visitor.check_unharmed("nothing went wrong in the browser")


def engines_of(pid):
    """Returns the process IDs of the servers that a stack has started, by name, as Linux shows them."""
    children = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
            children.setdefault(int(rest.split()[1]), []).append((int(process), name))
    found, waiting = {}, [pid]
    while waiting:
        for child, name in children.get(waiting.pop(), []):
            if name in ("postgres", "valkey-server", "redis-server"):
                found[name] = child
            else:
                waiting.append(child)
    return found


def engine_down(browser, local):
    """Stops the servers of the tiers. This is the last story of a stack."""
    put(local, user("down"))
    with Visitor(browser, local.console) as visitor:
        visitor.open("/break")
        shows(visitor, "the light is green", "Verify: green", "#light")
        visitor.click("button", "Take S3 down")
        for path in ("/archive", "/quarantine"):
            visitor.open(path, 502)
            check(f"{path} names the bucket that cannot be read", "users-" in visitor.alert())
            check("with a way on", visitor.page.locator("main a").count() > 0)
        visitor.open("/break")
        visitor.click("button", "Repair S3")
        engines = engines_of(local.process.pid)
        check(f"the stack has started two servers ({', '.join(engines)})", len(engines) == 2)
        for engine in engines.values():
            os.kill(engine, signal.SIGKILL)
        started = time.monotonic()
        visitor.open(key_address(key_of("down", 1)))
        check("the page Key is shown while they are down", time.monotonic() - started < 15)
        check("with the item of the table and the replica", '"down"' in visitor.region("replica dynamodb").inner_text())
        for store, setting in (("replica postgres", "POSTGRES_URL"), ("cache", "CACHE_URL")):
            error_text = visitor.region(store).get_by_role("alert").inner_text()
            check(f"{store}: the page names what is unreachable", "unreachable" in error_text and setting in error_text)
        check("and without a verdict on all replicas", "Not every store could be read." in visitor.text())
        visitor.open("/break")
        shows(visitor, "the light is neither green nor red", "Verify: unknown", "#light")
        visitor.check_unharmed("nothing went wrong in the browser")


def without_script(browser, local):
    with Visitor(browser, local.console, java_script_enabled=False) as visitor:
        for name, path in {**PAGES, **deep_pages(local)}.items():
            visitor.open(path)
            text = visitor.text()
            check(f"{name} is readable", len(text) > 100 and "undefined" not in text)
            broken = visitor.page.locator("form:not(:has(button[type=submit]))").count()
            check("each of its forms can be sent", broken == 0)
        visitor.open("/")
        check("Live shows changes", visitor.page.locator("#rows tr").count() > 0)
        check("and how to update it", "Without JavaScript this page does not update itself" in visitor.text())
        visitor.go("Break it")
        check("the light shows its state", "Verify: " in visitor.page.locator("#light").inner_text())
        check("and how to update it", "Without JavaScript the light does not update itself" in visitor.text())
        visitor.click("button", "Write 10 items, twice")
        check("a switch works", "10 items were written and changed." in visitor.text())
        visitor.go("Tasks")
        visitor.page.locator("summary", has_text=re.compile("^verify:")).click()
        visitor.click("button", "Run verify")

        def has_ended():
            visitor.reload()
            return "done" in visitor.page.locator("#run").inner_text()

        eventually("a task is started, and its end seen", has_ended, 60)
        visitor.check_unharmed("nothing went wrong in the browser")


def keyboard(browser, local):
    with Visitor(browser, local.console) as visitor:
        page = visitor.page
        for name, path in {**PAGES, **deep_pages(local)}.items():
            visitor.open(path)
            page.keyboard.press("Tab")
            check(f"{name}: the first stop skips the navigation", page.evaluate("document.activeElement.hash") == "#main")
            page.keyboard.press("Enter")
            page.keyboard.press("Tab")
            inside = page.evaluate("document.querySelector('main').contains(document.activeElement)")
            check("and the next one is in the content", inside)
            visitor.reload()
            page.evaluate("""() => {
                window.reached = new Set();
                document.addEventListener('focusin', (event) => window.reached.add(event.target));
            }""")
            for _ in range(page.locator(f":is({CONTROLS}, [tabindex]):visible").count() + 2):
                page.keyboard.press("Tab")
            # The script replaces the light's links when it changes.
            missed = page.evaluate(
                """(controls) => [...document.querySelectorAll(controls)]
                    .filter((one) => one.checkVisibility() && !window.reached.has(one) && !one.closest('#light'))
                    .map((one) => one.outerHTML.slice(0, 160))""",
                CONTROLS,
            )
            check(f"{name}: the keyboard reaches every control", not print_all(missed))
        visitor.open("/")
        page.get_by_role("region", name="Counters of the replicas").focus()
        put(local, user("keyboard"))
        shows(visitor, "a change arrives", '"keyboard"', "#rows")
        label = page.evaluate("document.activeElement.ariaLabel")
        check("the focus stays where it is", label == "Counters of the replicas")
        page.get_by_label("Key contains").focus()
        page.keyboard.type("keyboard")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?key=keyboard*")
        check("Enter filters the timeline", page.locator("#rows tr").count() >= 1)
        pause = page.get_by_role("button", name="Pause")
        pause.focus()
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        page.keyboard.press("Space")
        check("Space pauses it", page.get_by_role("button", name="Continue").get_attribute("aria-pressed") == "true")
        check("the focus is visible", outline != "none")
        page.locator("#rows a").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/key?key=*")
        check("Enter opens the key of a change", "Every replica is equal to the source." in visitor.text())
        visitor.open("/break")
        page.get_by_role("button", name="Write 10 items, twice").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/break?done=write&*")
        check("Enter uses a switch", "10 items were written and changed." in visitor.text())
        visitor.open("/tasks")
        page.locator("summary", has_text=re.compile("^verify:")).focus()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Run verify").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/tasks/runs/*")
        shows(visitor, "Enter starts a task", "done", "#run p >> nth=0")
        visitor.check_unharmed("nothing went wrong in the browser")


def archived_object(local, bucket):
    """Returns the key of an object of the archive."""
    look = lambda: local.s3.list_objects_v2(Bucket=bucket, Prefix="archive/").get("Contents")
    if not look():
        put(local, user("old", expires_at={"N": str(int(time.time()) - 60)}))
    return eventually("the archive has an object", look)[0]["Key"]


def deep_pages(local):
    """Returns the pages below those of the navigation, with data."""
    archived = archived_object(local, "users-archive")
    put(local, user("deep"))
    key = json.dumps(key_of("deep", 1))
    query = urllib.parse.urlencode
    return {
        "key-stores": f"/key?{query({'key': key})}",
        "item": f"/tables/item?{query({'table': 'Users', 'key': key})}",
        "item-new": "/tables/item?table=Users",
        "archive-day": f"/archive/day?day={re.search(r'dt=([0-9-]+)', archived)[1]}",
        "archive-object": f"/archive/object?{query({'object': archived})}",
        "doctor-rule": "/doctor/discarded-without-destination",
    }


def accessible(browser, local):
    put(local, user("poison", 1, _rev={"S": "mine"}))
    put(local, user("moved", 1))
    eventually(
        "the failure bucket has an object",
        lambda: local.s3.list_objects_v2(Bucket="users-failures", Prefix="quarantine/").get("Contents"),
    )
    with Visitor(browser, local.console) as visitor:
        for name, path in {**PAGES, **deep_pages(local)}.items():
            visitor.open(path)
            if name == "break-it":
                shows(visitor, "the light is red", "Verify: red", "#light")
            if name == "live":
                visitor.page.locator(".uplot").last.wait_for()
            check_look(visitor, name)
        visitor.open("/tasks/runs/none", 404)
        check_look(visitor, "problem")
        visitor.open("/tasks")
        visitor.page.locator("summary", has_text=re.compile("^verify:")).click()
        visitor.click("button", "Run verify")
        visitor.page.get_by_role("heading", name="Report").wait_for(timeout=60_000)
        check_look(visitor, "run")
        visitor.open("/archive")
        visitor.click("button", "Run the query")
        check_look(visitor, "archive-query")
        visitor.check_unharmed("nothing went wrong in the browser")
    local.dynamodb.delete_item(TableName="Users", Key=key_of("poison", 1))


def markup_in_data(browser, folder):
    """Markup in keys, attribute names and values, on a stack whose key attribute is named so; the browser ignores the page's
    policy, so that only escaping keeps the markup from running."""
    description = os.path.join(folder, "table.json")
    with open(description, "w", encoding="utf-8") as file:
        json.dump({"Table": MARKUP_TABLE}, file)
    with Local("--table", description, "--ttl-attribute", "ttl", env=PATH) as local:
        with Visitor(browser, local.console, bypass_csp=True) as visitor:
            harmless = lambda: visitor.page.evaluate(
                """() => window.harmed === undefined
                    && !document.querySelector('img, script:not([src]), [onfocus], [onerror]')"""
            )
            for runs, options in ((True, {"bypass_csp": True}), (False, {})):
                with Visitor(browser, local.console, **options) as other:
                    other.open("/")
                    other.page.evaluate("(markup) => document.body.insertAdjacentHTML('beforeend', markup)", MARKUP)
                    other.page.wait_for_timeout(300)
                    what = f"markup that is not escaped {'runs without' if runs else 'does not run with'} the policy"
                    check(what, other.page.evaluate("window.harmed === 1") == runs)
            key = {MARKUP: {"S": MARKUP}}
            value = {"M": {MARKUP: {"L": [{"S": MARKUP}, {"SS": [MARKUP]}]}}}
            visitor.open("/")
            put(local, {**key, f"{MARKUP} 2": value}, "Markup")
            put(local, {MARKUP: {"S": f"poison {MARKUP}"}, "_rev": value}, "Markup")
            past = {"N": str(int(time.time()) - 60)}
            put(local, {MARKUP: {"S": f"old {MARKUP}"}, f"{MARKUP} 2": value, "ttl": past}, "Markup")
            shows(visitor, "changes with markup arrive on the open page", "archiver: applied", "#rows")
            check("Live shows it as text", MARKUP[:30] in visitor.text() and harmless())
            query = urllib.parse.urlencode
            text = json.dumps(key)
            archived = archived_object(local, "markup-archive")
            paths = {
                "Live, filtered": f"/?{query({'key': '<script>'})}",
                "Key": f"/key?{query({'key': text})}",
                "Key, archived": f"/key?{query({'key': json.dumps({MARKUP: {'S': f'old {MARKUP}'}})})}",
                "Tables": "/tables?table=Markup",
                "Tables, plain": "/tables?table=Markup&view=plain",
                "Tables, query": f"/tables?{query({'table': 'Markup', 'partition': MARKUP})}",
                "Item": f"/tables/item?{query({'table': 'Markup', 'key': text})}",
                "Item, plain": f"/tables/item?{query({'table': 'Markup', 'key': text, 'view': 'plain'})}",
                "Archive": f"/archive?{query({'key': text})}",
                "Archive object": f"/archive/object?{query({'object': archived})}",
                "Quarantine": "/quarantine",
            }
            for name, path in paths.items():
                visitor.open(path)
                shown = html.unescape(visitor.page.inner_html("main"))
                check(f"{name}: it is text", MARKUP[:30] in shown and harmless())
            rejected = {
                "/": "verdict",
                "/key": "key",
                "/tables": "table",
                "/tables?table=Markup": "index",
                "/tables/item?table=Markup": "key",
                "/archive/day": "day",
                "/archive/object": "object",
                "/archive?": "skip",
            }
            for path, field in rejected.items():
                url = f"{path}{'&' if '?' in path else '?'}{query({field: MARKUP})}"
                visitor.page.goto(url)
                check(f"a rejected {field} is text", "<script>" in visitor.text() and harmless())
            for path in ("/doctor/", "/tasks/runs/"):
                visitor.page.goto(path + urllib.parse.quote(MARKUP, safe=""))
                check("so is a wrong address", harmless())
            visitor.open("/break")
            visitor.click("button", "Drop the replica")
            shows(visitor, "the red light names a key with markup", "Verify: red", "#light")
            check("as text", "<script>" in visitor.page.locator("#light").inner_text() and harmless())
            visitor.open("/archive")
            visitor.click("button", "Run the query")
            check("a query shows it as text", "<script>" in visitor.region("Rows of the query").inner_text() and harmless())
            visitor.open("/tables/item?table=Markup")
            visitor.page.get_by_role("textbox").fill(MARKUP)
            visitor.click("button", "Create")
            check("so does a rejected item", "<script>" in visitor.page.get_by_role("textbox").input_value() and harmless())
            visitor.open("/tasks")
            visitor.page.locator("summary", has_text=re.compile("^repair:")).click()
            visitor.click("button", "Run repair")
            visitor.page.get_by_role("heading", name="Report").wait_for(timeout=60_000)
            check("and the report of a task", "<script>" in visitor.text() and harmless())


class DeployedAccount(http.server.ThreadingHTTPServer):
    """An account with the stack of the console's tests, whose tables and buckets are those of a local stack."""

    daemon_threads = True
    RECORDED = os.path.join(ROOT, "crates", "console", "src", "tests", "stack.json")
    FUNCTION = "GetFunctionConfiguration FunctionName=users-maintenance"
    VARIABLES = {
        "SOURCE_TABLE": "Users",
        "REPLICA_TABLE": "UsersReplica",
        "ARCHIVE_BUCKET": "users-archive",
        "FAILURE_BUCKET": "users-failures",
        "REPLICATOR_FUNCTION": "users-replicator",
        "ARCHIVER_FUNCTION": "users-archiver",
        "STACK_NAME": "users",
    }

    def __init__(self, local):
        self.local = local
        self.is_expired = False
        with open(self.RECORDED, encoding="utf-8") as file:
            self.recorded = json.load(file)
        self.recorded[self.FUNCTION]["Environment"]["Variables"] = self.VARIABLES
        account = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def respond(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status, headers, content = account.respond(self.command, self.path, self.headers, body)
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                if not any(name.lower() == "content-length" for name, _ in headers):
                    self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def respond(self, method, path, headers, body):
        """Returns the status, the headers and the body of a response."""
        target = headers.get("x-amz-target", "")
        is_form = "form-urlencoded" in headers.get("content-type", "")
        if self.is_expired:
            return self.expired(is_json=bool(target) or is_form or path.startswith("/20"))
        if target.startswith("DynamoDB_"):
            return self.forward(self.local.dynamodb.meta.endpoint_url, method, path, headers, body)
        if target:
            (name, value), *_ = json.loads(body).items()
            return self.record(f"{target.split('.')[1]} {name}={value}")
        if is_form:
            form = dict(urllib.parse.parse_qsl(body.decode()))
            if form["Action"] == "GetMetricData":
                return self.metrics(form)
            return self.record(f"{form['Action']} StackName={form.get('StackName')}")
        function = re.match(r"/2015-03-31/functions/([^/]+)/configuration", path)
        if function:
            return self.record(f"GetFunctionConfiguration FunctionName={function[1]}")
        if path.startswith("/20"):
            return self.record(path)
        return self.forward(self.local.s3.meta.endpoint_url, method, path, headers, body)

    def record(self, call):
        if call in self.recorded:
            return 200, [], json.dumps(self.recorded[call]).encode()
        return 403, [("x-amzn-errortype", "AccessDeniedException")], b'{"message":"not authorized"}'

    def expired(self, is_json):
        message = "The security token included in the request is expired"
        if is_json:
            return 400, [("x-amzn-errortype", "ExpiredTokenException")], json.dumps({"message": message}).encode()
        return 400, [], f"<Error><Code>ExpiredToken</Code><Message>{message}</Message></Error>".encode()

    def metrics(self, form):
        """Returns a value of every second period; the lag varies."""
        start = datetime.datetime.fromisoformat(form["StartTime"])
        queries = [name.split(".")[2] for name in form if re.fullmatch(r"MetricDataQueries\.member\.\d+\.Id", name)]
        results = []
        for number in queries:
            prefix = f"MetricDataQueries.member.{number}"
            name = form[f"{prefix}.MetricStat.Metric.MetricName"]
            period = datetime.timedelta(seconds=int(form[f"{prefix}.MetricStat.Period"]))
            times = [(start + period * step).isoformat() for step in range(0, 36, 2)]
            largest = {"ReplicationLag": 2_000, "IteratorAge": 900, "AppliedChanges": 120, "Invocations": 40}.get(name, 0)
            values = [largest * (step % 5 + 1) // 5 for step in range(len(times))]
            results.append({"Id": form[f"{prefix}.Id"], "Timestamps": times, "Values": values})
        return 200, [], json.dumps({"MetricDataResults": results}).encode()

    def forward(self, endpoint, method, path, headers, body):
        authority = urllib.parse.urlsplit(endpoint).netloc
        connection = http.client.HTTPConnection(authority, timeout=30)
        connection.request(method, path, body, {name: value for name, value in headers.items() if name.lower() != "host"})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        dropped = ("transfer-encoding", "connection")
        return response.status, [one for one in response.getheaders() if one[0].lower() not in dropped], content


@contextlib.contextmanager
def deployed_console(account):
    """Starts `millrace console` of the account's stack, and returns its URL."""
    credentials = {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "anything", "AWS_EC2_METADATA_DISABLED": "true"}
    options = ["--stack", "users", "--endpoint-url", account.url, "--region", "eu-west-1", "--console-port", "0"]
    with Program(*MILLRACE, "console", *options, env={**PATH, **credentials}) as program:
        yield re.search(r"http://127\.0\.0\.1:\d+", program.wait_for("console of", 1200))[0]


def deployed_stack(browser, local):
    put(local, user("ada"))
    put(local, user("stuck", 1, _rev={"S": "mine"}))
    pages = {**PAGES, **deep_pages(local)}
    shared = ("key", "archive", "quarantine", "tasks", "doctor", "key-stores", "archive-day", "archive-object", "doctor-rule")
    paths = {"metrics": "/", **{name: pages[name] for name in shared}, "run": "/tasks/runs/dry"}
    eventually(
        "the failure bucket has an object",
        lambda: local.s3.list_objects_v2(Bucket="users-failures", Prefix="quarantine/").get("Contents"),
    )
    with DeployedAccount(local) as account, deployed_console(account) as console:
        with Visitor(browser, console) as visitor:
            visitor.open("/")
            check("the page Metrics has the lag of a replica", "2000 ms" in visitor.region("Metrics of the replicas").inner_text())
            for name, path in paths.items():
                visitor.open(path)
                if name == "doctor":
                    shows(visitor, "the findings are read", "Read at ", "#run", 60)
                check_look(visitor, f"deployed-{name}")
            visitor.open(pages["key-stores"])
            check("a key is shown in all stores", "Every replica is equal to the source." in visitor.text())
            visitor.open("/quarantine")
            check("a quarantined record is shown", "_rev" in visitor.text())
            check("nothing can be started", visitor.page.locator("form[method=post]").count() == 0)
            visitor.open("/break", 404)
            check("a page of a local stack is explained", "needs a local stack" in visitor.alert())
            account.is_expired = True
            for path in ("/", pages["key-stores"], "/archive", "/quarantine", "/tasks"):
                visitor.open(path, 502)
                error_text = visitor.alert()
                check(f"{path[:12]} names the expired credential and the fix", "ExpiredToken" in error_text and "og in again" in error_text)
            check_look(visitor, "deployed-expired")
            account.is_expired = False
            visitor.open("/quarantine")
            check("after a login, the page works again", "_rev" in visitor.text())
            visitor.check_unharmed("nothing went wrong in the browser")
    local.dynamodb.delete_item(TableName="Users", Key=key_of("stuck", 1))


STORIES = [
    first_visit,
    change_arrives,
    poison_record,
    broken_replica,
    old_delivery,
    expired_key,
    foreign_site,
    bad_input,
    without_script,
    keyboard,
    accessible,
    deployed_stack,
    engine_down,
]


def main(selected):
    started = time.monotonic()
    stories = [story for story in STORIES if selected in story.__name__]
    if not stories and selected not in markup_in_data.__name__:
        sys.exit(f"no story has {selected!r} in its name: {', '.join(story.__name__ for story in [*STORIES, markup_in_data])}")
    with chromium(f"--host-resolver-rules=MAP {FOREIGN_HOST} 127.0.0.1") as browser:
        with Local("--auth", "jwt", "--postgres", "auto", "--cache", "auto", env=PATH) as local:
            for story in stories:
                print(f"{story.__name__.replace('_', ' ')}:")
                story(browser, local)
        if selected in markup_in_data.__name__:
            print("markup in data:")
            with tempfile.TemporaryDirectory() as folder:
                markup_in_data(browser, folder)
    print(f"  took    {time.monotonic() - started:.0f} s, built")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
