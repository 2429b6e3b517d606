#!/usr/bin/env python3
"""Calls the users API: a retried create, conditional requests, a lost update that is rejected, and pages of a list.

Requires a running `millrace` and Python 3.9 or later, without further packages:

    cargo run
    python3 examples/users_api.py
"""

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid


class UsersApi:
    """A client of the API that returns every response, error responses included."""

    def __init__(self, url, token=None):
        self.url = url
        self.headers = {"authorization": f"Bearer {token}"} if token else {}

    def request(self, method, path, body=None, headers=None, content_type="application/json"):
        """Returns the status, the headers and the parsed body (None if it is empty)."""
        request = urllib.request.Request(self.url + path, method=method, headers={**self.headers, **(headers or {})})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", content_type)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                text = response.read()
                return response.status, response.headers, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            # urllib raises for 304, too. Other errors have a body of the type application/problem+json.
            text = error.read()
            return error.code, error.headers, json.loads(text) if text else None
        except urllib.error.URLError as error:
            sys.exit(f"error: cannot reach {self.url}: {error.reason}; start it with cargo run, or set --api")

    def list(self, path, **query):
        """Yields each page of a list. `next_cursor` of a page is the parameter `cursor` of the next request."""
        cursor = None
        while True:
            parameters = {**query, "cursor": cursor} if cursor else query
            status, _, body = self.request("GET", f"{path}?{urllib.parse.urlencode(parameters)}")
            if status != 200:
                raise RuntimeError(f"GET {path}: {status} {body['title']}: {body['detail']}")
            yield body["users"]
            cursor = body["next_cursor"]
            # A page may be short or empty although another one follows.
            if cursor is None:
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", default="http://127.0.0.1:8080", help="the API's URL (default: %(default)s)")
    parser.add_argument("--token", help="an access token, if the API runs with --auth jwt")
    options = parser.parse_args()
    api = UsersApi(options.api, options.token)
    user_id = f"example-{uuid.uuid4()}"

    # One key per logical create: a request that is sent again after a timeout creates no second user.
    user = {"user_id": user_id, "timestamp": 1, "name": "Ada Lovelace", "email": "ada@example.com"}
    key = {"idempotency-key": str(uuid.uuid4())}
    status, first, _ = api.request("POST", "/users", user, key)
    print(f"create: {status}, at {first['location'].replace(user_id, '<user_id>')}")
    status, second, _ = api.request("POST", "/users", user, key)
    print(f"create again with the same key: {status}, same version: {first['etag'] == second['etag']}")

    # The ETag is the record's version. A read with If-None-Match transfers no body if nothing changed.
    path, etag = first["location"], first["etag"]
    status, _, _ = api.request("GET", path, headers={"if-none-match": etag})
    print(f"read with If-None-Match: {status}")

    # An update with If-Match succeeds only if no one else has changed the record since it was read.
    merge_patch = "application/merge-patch+json"
    status, _, body = api.request("PATCH", path, {"name": "Ada King"}, {"if-match": etag}, merge_patch)
    print(f"update with If-Match: {status}, name: {body['user']['name']}")
    status, _, problem = api.request("PATCH", path, {"status": "active"}, {"if-match": etag}, merge_patch)
    print(f"update with the old ETag: {status}, {problem['type']}")

    # Further records of the same user, and the user's history page by page.
    for timestamp in range(2, 6):
        api.request("PUT", f"/users/{user_id}/{timestamp}", {"name": f"Ada King, {timestamp}"}, {"if-none-match": "*"})
    pages = list(api.list(f"/users/{user_id}", limit=2, order="asc"))
    for page in pages:
        print(f"page: {[record['timestamp'] for record in page]}")

    # Delete everything that this example created, each record in the version that was read.
    for record in (record for page in pages for record in page):
        path = f"/users/{user_id}/{record['timestamp']}"
        status, _, _ = api.request("DELETE", path, headers={"if-match": f'"{record["version"]}"'})
        if status != 204:
            raise RuntimeError(f"DELETE {path}: {status}")
    status, _, _ = api.request("GET", path)
    print(f"read after the delete: {status}")


if __name__ == "__main__":
    main()
