"""A real Chromium that notes every message and every request of the pages it opens."""

from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Page, sync_playwright
from servers import eventually

SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@dataclass
class Visit:
    """An open page; ``problems`` are messages of its console and errors of its script."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def until(self, expression):
        """Wait until a JavaScript expression is true; the page's policy keeps Playwright from waiting within it."""
        return eventually(lambda: self.page.evaluate(expression))


@contextmanager
def chromium(program):
    """Yield ``visit(url, size, scheme)``."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)

        def visit(url, size="desktop", scheme="light", **options):
            page = browser.new_page(viewport=SIZES[size], color_scheme=scheme, **options)
            made = Visit(page)
            page.on("console", lambda message: made.problems.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: made.problems.append(f"error: {error}"))
            page.on("request", lambda request: made.requests.append(request.url))
            page.goto(url)
            return made

        try:
            yield visit
        finally:
            browser.close()
