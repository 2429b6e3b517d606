"""Shared module of the stories: a running `millrace`, and checks that are printed."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time

import boto3

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The features (tests/Cargo.toml) and the profile of the tests, so that what they compiled is reused.
FEATURES = ["--features", "test-util"]
MILLRACE = ["cargo", "run", "--locked", "--quiet", "--profile", "test", *FEATURES, "--"]


class Program:
    """A child process in a process group of its own; its output is read line by line and printed on a failure."""

    def __init__(self, *command, env=None):
        self.command = command
        self.lines = []
        self.unread = queue.Queue()
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            self.unread.put(line)
        self.unread.put(None)

    def wait_for(self, pattern, seconds):
        """Waits for a line that matches; returns all lines up to it."""
        seen = []
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self.unread.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.fail(f"printed nothing like {pattern!r} within {seconds} s")
            if line is None:
                self.fail(f"ended with exit code {self.process.wait()} before it printed anything like {pattern!r}")
            seen.append(line)
            if re.search(pattern, line):
                return "".join(seen)

    def output(self, seconds):
        """Returns the complete output after the process has ended, when the last lines may still be unread."""
        self.process.wait(seconds)
        self.reader.join(seconds)
        return "".join(self.lines)

    def fail(self, reason):
        sys.exit(f"{' '.join(self.command)}: {reason}; its output:\n{''.join(self.lines)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Local(Program):
    """A `millrace` stack on free ports that is started and ready."""

    def __init__(self, *options, env=None):
        ports = ["--port", "0", "--dynamodb-port", "0", "--s3-port", "0", "--console-port", "0", "--ttl-interval", "1"]
        super().__init__(*MILLRACE, *ports, *options, env=env)
        banner = self.wait_for("Ctrl-C stops", 1200)
        self.console, self.api, dynamodb, s3 = (
            re.search(rf"^\s+{name}\s+(http://127\.0\.0\.1:\d+)$", banner, re.MULTILINE)[1]
            # A stack without the users API serves the Lambda API there.
            for name in ("console", "(?:API|Lambda)", "DynamoDB", "S3")
        )
        # The options by which `millrace task` reaches this stack.
        self.ports = {
            option: url.rsplit(":", 1)[1]
            for option, url in (("--port", self.api), ("--dynamodb-port", dynamodb), ("--s3-port", s3))
        }
        # Any credentials are accepted: `millrace` does not check them.
        self.session = boto3.Session("anybody", "anything", region_name="eu-central-1")
        self.dynamodb = self.client("dynamodb", dynamodb)
        self.s3 = self.client("s3", s3)

    def client(self, service, endpoint=None, **options):
        """Returns a new client, for the S3 endpoint unless another endpoint is given."""
        return self.session.client(service, endpoint_url=endpoint or self.s3.meta.endpoint_url, **options)


def eventually(what, look, seconds=30):
    """Calls `look` until it finds something, which is returned; fails after the time limit."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            print(f"  ok      {what}")
            return found
        if time.monotonic() > deadline:
            sys.exit(f"  FAILED  {what}: not within {seconds} s")
        time.sleep(0.1)


def check(what, holds):
    if not holds:
        sys.exit(f"  FAILED  {what}")
    print(f"  ok      {what}")
