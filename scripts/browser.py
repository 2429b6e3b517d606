"""Shared module of the stories in a browser: a Chromium that is installed, pages whose requests and messages are recorded,
accessibility checks with axe-core, and screenshots."""

import contextlib
import importlib.resources
import os
import shutil
import sys
import urllib.parse

from playwright.sync_api import sync_playwright

from story import ROOT, check

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SCREENSHOTS = os.path.join(ROOT, "target", "screenshots")
# A telephone and a laptop, in CSS pixels.
WIDTHS = {375: 812, 1440: 900}
AXE = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@contextlib.contextmanager
def chromium(*arguments):
    """Starts the installed Chromium; Playwright downloads none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        sys.exit(f"missing: a browser ({', '.join(PROGRAMS)}). Install it with scripts/tools")
    # The sandbox of Chromium does not start as root.
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*sandbox, *arguments])
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """A person at a browser: a page of the console, with the clicks on it, and everything that went wrong in it."""

    def __init__(self, browser, console, **options):
        self.console = console
        self.clicks = 0
        self.requests = []
        # Console errors, exceptions of scripts, and requests to other hosts.
        self.problems = []
        # The statuses of pages that are rejected on purpose: the browser's console reports them as well.
        self.expected = set()
        options.setdefault("viewport", {"width": 1440, "height": WIDTHS[1440]})
        self.context = browser.new_context(base_url=console, **options)
        self.context.set_default_timeout(20_000)
        self.context.on("request", self._requested)
        self.context.on("console", self._said)
        self.context.on("weberror", lambda failed: self.problems.append(f"exception: {failed.error}"))
        self.context.on("dialog", self._dialog)
        self.page = self.context.new_page()

    def _requested(self, request):
        self.requests.append(request)
        if urllib.parse.urlsplit(request.url).netloc != urllib.parse.urlsplit(self.console).netloc:
            self.problems.append(f"request to another host: {request.url}")

    def _said(self, message):
        is_expected = message.location["url"] in self.expected and "Failed to load resource" in message.text
        if message.type in ("error", "warning") and not is_expected:
            self.problems.append(f"{message.type} in the console: {message.text} ({message.location['url']})")

    def _dialog(self, dialog):
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path, status=200):
        """Opens a page, whose status is checked."""
        url = urllib.parse.urljoin(self.console, path)
        if status != 200:
            self.expected.add(url)
        response = self.page.goto(path, wait_until="load")
        if response.status != status:
            sys.exit(f"  FAILED  {path}: status {response.status}, not {status}\n{self.text()}")

    def reload(self):
        """Loads the page again by its address. Playwright's `reload` sometimes fails just after a form has led to the page
        ("Not attached to an active page"). With a fragment, the browser would scroll instead of loading the page."""
        self.page.goto(urllib.parse.urldefrag(self.page.url).url)

    def click(self, role, name, within=None):
        """Clicks on an element that is found by its role and its complete name, as a person sees it."""
        self.clicks += 1
        (within or self.page).get_by_role(role, name=name, exact=True).click()

    def go(self, name):
        """Clicks on a page's name in the navigation."""
        self.click("link", name, self.page.get_by_role("navigation", name="Pages"))

    def region(self, name):
        """Returns the part of the page with this label."""
        return self.page.get_by_role("region", name=name, exact=True)

    def text(self):
        """Returns the text of the page's content."""
        return self.page.locator("main").inner_text()

    def alert(self):
        """Returns the message that the page announces."""
        return self.page.get_by_role("alert").inner_text()

    def check_unharmed(self, what):
        """Checks that nothing went wrong since the last call."""
        self.page.wait_for_timeout(50)
        problems, self.problems = self.problems, []
        check(what, not print_all(problems))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


def print_all(problems):
    for problem in problems:
        print(f"          {problem}")
    return problems


def violations(page):
    """Returns the violations of the accessibility rules of axe-core in a page, each with its first elements."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']}: {one['help']}: {', '.join(node['html'][:160] for node in one['nodes'][:3])}" for one in found
    ]


def check_look(visitor, name):
    """Checks a loaded page in light and dark and at both widths, and writes a screenshot of each width."""
    page = visitor.page
    os.makedirs(SCREENSHOTS, exist_ok=True)
    # Content that is folded must be readable, too.
    page.evaluate("document.querySelectorAll('details').forEach((folded) => { folded.open = true; })")
    found = []
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            found += [f"{width} px, {scheme}: {one}" for one in violations(page)]
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if overflow > 0:
            found.append(f"{width} px: the page is {overflow} px too wide")
        page.screenshot(path=os.path.join(SCREENSHOTS, f"{name}-{width}.png"), full_page=True)
    check(f"{name}: axe-core finds no violation, and nothing is cut", not print_all(found))
