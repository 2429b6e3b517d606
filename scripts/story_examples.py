#!/usr/bin/env python3
"""Runs every example of examples/README.md against a `millrace` stack and checks its output."""

import os
import subprocess
import sys
import tempfile

from story import ROOT, Local, check
from story_duckdb import task


def output(*command):
    """Returns what an example prints; fails if its exit code is not 0."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    if done.returncode != 0:
        sys.exit(f"  FAILED  {' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def documented(first_line):
    """Returns the output block of examples/README.md that starts with this line."""
    with open(os.path.join(ROOT, "examples", "README.md"), encoding="utf-8") as page:
        blocks = page.read().split("```text\n")[1:]
    return next(block.split("```")[0] for block in blocks if block.startswith(first_line))


def main():
    with tempfile.TemporaryDirectory() as data, Local("--data", data) as local:
        printed = output("python3", os.path.join("examples", "users_api.py"), "--api", local.api)
        check("users_api.py prints the documented output", printed == documented("create: 201"))

        bucket = os.path.join(data, "s3", "users-archive")
        archive = [sys.executable, os.path.join("examples", "archive_duckdb.py"), "--api", local.api, "--bucket", bucket]
        printed = output(*archive)
        check("archive_duckdb.py counts removals per status", "status=on leave, removals=1, users=1\n" in printed)
        check("and prints the archived values", "name=Ada Lovelace, seats=12\n" in printed)
        check("and names the tasks that write Parquet", "run the tasks compact and export-parquet" in printed)
        for name in ("compact", "export-parquet"):
            task(local, {"task": name, "to": "2999-01-01T00:00:00Z"})
        printed = output(*archive)
        check("with Parquet it counts removals per day", "removals=2, users=2\n" in printed.split("Removals per day")[1])
        check("and prints typed columns", 'name=Ada Lovelace, attributes={"seats":12}\n' in printed)

    # With the features of all packages, as the tests compiled it.
    printed = output("cargo", "run", "--locked", "--quiet", "--example", "custom_sink")
    check("custom_sink prints the documented output", printed == documented("create: 1 applied"))


if __name__ == "__main__":
    sys.exit(main())
