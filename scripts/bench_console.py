#!/usr/bin/env python3
"""Measures what an open page Live costs a stack of `millrace up` under load: memory, CPU time, the lag of replication, and
the lag of the page.

Pairs of runs, without a page and with one in a browser, each on a stack of its own. Prints a table for docs/benchmarks.md.
The binary is an argument: scripts/bench builds and names it.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
import urllib.request

import story
from browser import Visitor, chromium, print_all

DESCRIPTION = os.path.join("examples", "orders-table.json")
# More than a batch of the replicator contains: of several changes of a key in a batch, only the last is written.
KEYS = 10_000
BATCH = 25
WRITERS = 2
# The oldest change that an update of the page shows, when the page shows it.
WATCH = """() => {
    window.lags = [];
    new MutationObserver((changes) => {
        const rows = changes.flatMap((one) => [...one.addedNodes]).filter((one) => one.querySelector);
        const times = rows.map((one) => Date.parse(one.querySelector('time').dateTime));
        if (times.length) requestAnimationFrame(() => window.lags.push(Date.now() - Math.min(...times)));
    }).observe(document.getElementById('rows'), { childList: true });
}"""


class LoadRun:
    """Writers at a fixed rate, and what they did to the stack."""

    def __init__(self, local, rate, seconds):
        self.local, self.rate, self.seconds = local, rate, seconds
        self.written = 0
        self.lock = threading.Lock()

    def write(self, first):
        """Writes batches at the rate of one writer until the time is over."""
        client = self.local.client("dynamodb", self.local.dynamodb.meta.endpoint_url)
        started = time.monotonic()
        for number in range(int(self.rate * self.seconds / BATCH / WRITERS)):
            due = started + number * BATCH * WRITERS / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            keys = [(first + number * BATCH * WRITERS + offset) % KEYS for offset in range(BATCH)]
            note = {"S": f"{number} " * 40}
            items = [{"pk": {"S": f"customer-{key}"}, "sk": {"N": str(key)}, "note": note} for key in keys]
            client.batch_write_item(RequestItems={"Orders": [{"PutRequest": {"Item": item}} for item in items]})
            with self.lock:
                self.written += BATCH

    def lags(self):
        """Returns the lag of the replica in each second of the last minute, in milliseconds."""
        with urllib.request.urlopen(f"{self.local.console}/lag.json?window=minute") as response:
            points = json.load(response)
        own = points["lag_ms"][points["sinks"].index("dynamodb")]
        return [lag for lag in own if lag is not None]

    def measure(self):
        """Writes, waits until every change is replicated, and returns the figures."""
        pid = self.local.process.pid
        before = cpu_seconds(pid)
        started = time.monotonic()
        writers = [threading.Thread(target=self.write, args=(index * BATCH,)) for index in range(WRITERS)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        write_seconds = time.monotonic() - started
        last = {"pk": {"S": "last"}, "sk": {"N": "0"}}
        self.local.dynamodb.put_item(TableName="Orders", Item=last)
        while "Item" not in self.local.dynamodb.get_item(TableName="OrdersReplica", Key=last, ConsistentRead=True):
            time.sleep(0.02)
        seconds = time.monotonic() - started
        return {
            "written per second": self.written / write_seconds,
            "replicated per second": self.written / seconds,
            "CPU µs per change": (cpu_seconds(pid) - before) * 1e6 / self.written,
            "lag of replication, median ms": statistics.median(self.lags()),
            "peak memory, MB": peak_megabytes(pid),
        }


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_megabytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        [peak] = [line for line in file if line.startswith("VmHWM")]
    return int(peak.split()[1]) / 1024


def run(browser, rate, seconds):
    """Measures one run, with a page if there is a browser; returns its figures."""
    with story.Local("--table", DESCRIPTION) as local:
        load = LoadRun(local, rate, seconds)
        if browser is None:
            return load.measure()
        with Visitor(browser, local.console) as visitor:
            visitor.open("/")
            visitor.page.evaluate(WATCH)
            figures = load.measure()
            visitor.page.wait_for_timeout(1_000)
            lags = sorted(visitor.page.evaluate("window.lags"))
            if print_all(visitor.problems):
                sys.exit("the page had errors")
            figures["lag of the page, median ms"] = statistics.median(lags)
            figures["lag of the page, 99th percentile ms"] = lags[int(len(lags) * 0.99)]
            return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", help="the program millrace")
    parser.add_argument("--rate", type=int, default=1_000, help="changes per second")
    parser.add_argument("--seconds", type=int, default=20, help="duration of each run")
    parser.add_argument("--pairs", type=int, default=2, help="number of pairs of runs")
    options = parser.parse_args()
    # The memory of the program itself, not of cargo.
    story.MILLRACE[:] = [os.path.abspath(options.binary)]
    without, with_page = [], []
    with chromium() as browser:
        for pair in range(options.pairs):
            # In alternating order, because the machine may become slower or faster.
            for viewer in (None, browser) if pair % 2 == 0 else (browser, None):
                (with_page if viewer else without).append(run(viewer, options.rate, options.seconds))
    print(f"| {options.rate} changes per second for {options.seconds} s, {options.pairs} runs each | no page | Live open |")
    print("| --- | --- | --- |")
    for name in with_page[0]:
        cells = [", ".join(f"{one[name]:,.0f}" for one in runs if name in one) or "–" for runs in (without, with_page)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
