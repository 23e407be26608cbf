"""The page in a real Chromium: no error, no request, right figures, in each light and on paper."""

import json
import os
import re
import shutil
import time

import pytest
from tests.reporting.conftest import history, write_inputs
from tests.reporting.test_page import NASTY

from efsstate.cli import app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI", "").lower() != "true",
    reason="no Chromium; with CI=true it must be there",
)
CHARTS = 8
_LONG = 120_000  # milliseconds: a machine with other work on it is slow


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "scripts/packages installs Chromium"
    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        running = driver.chromium.launch(executable_path=CHROMIUM, args=options, timeout=_LONG)
        yield running
        running.close()


def write(root, folder, *also):
    """Write the page with every section; `also` lines are added to the events."""
    write_inputs(folder)
    with open(folder / "run.jsonl", "a") as file:
        file.writelines(f"\n{json.dumps(line)}" for line in also)
    target = folder / "report.html"
    line = ["report", "--root", str(root), "-o", str(target), "--title", "shop"]
    line += ["--events", str(folder / "run.jsonl"), "--plan", str(folder / "plan.toml")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("efsstate.cli.plan.read_history", history)
        assert app.run([*line, "--file-system", "fs-0123456789abcdef0"]) == 0
    return target.as_uri()


@pytest.fixture(scope="module")
def address(planted, tmp_path_factory):
    return write(planted, tmp_path_factory.mktemp("page"))


class Page:
    """An open page: the messages of its console, and every address that it asked for."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(_LONG)
        self.messages, self.requests = [], []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.drawn()

    def drawn(self, count=CHARTS):
        self.wait(f"document.documentElement.dataset.drawn == {count}")

    def wait(self, script):
        """Ask until it is so; the page's policy forbids the driver's own way, an `eval` in it."""
        deadline = time.monotonic() + _LONG / 1000
        while not self.run(script):
            assert time.monotonic() < deadline, script
            time.sleep(0.05)

    def run(self, script):
        return self.page.evaluate(script)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


def test_it_shows_the_figures_and_asks_for_nothing(browser, address):
    with Page(browser, address) as shown:
        assert shown.messages == []
        assert shown.requests == [address]
        texts = shown.run("[...document.querySelectorAll('[data-chart=space] text')]"
                          ".map(each => each.textContent)")  # fmt: skip
        assert "thumbnails" in " ".join(texts) and "resnet50" in " ".join(texts)
        assert (
            shown.page.locator("#activity-table tbody tr").inner_text().split("\t")[1] == "90.0 %"
        )
        assert shown.page.locator("dl.tiles dd").nth(5).inner_text() == "90.0 %"
        cost = shown.page.locator("#cost-table tbody tr").first.inner_text().split("\t")
        drawn = shown.run("document.querySelectorAll('[data-chart=cost] svg path').length")
        assert cost[0] == "elastic" and re.fullmatch(r"\$[\d,]+\.\d\d", cost[1]) and drawn > 10


def test_a_reader_of_the_screen_is_told_everything(browser, address):
    """Each chart is an image with a name; tables, sections and bars have theirs too."""
    with Page(browser, address) as shown:
        tree = shown.page.locator("body").aria_snapshot()
        for name in ("Where the space goes", "Hit rates and latencies", "Credits and cost"):
            assert f'heading "{name}" [level=2]' in tree
        images = re.findall(r'img "([^"]+)"', tree)
        assert len(images) == CHARTS and all("table has the figures" in text for text in images)
        assert 'progressbar "3 of 4 shards"' in tree
        assert 'rowheader "thumbnails"' in tree and 'columnheader "hit rate"' in tree


def test_the_keyboard_reaches_the_content(browser, address):
    """The first stop skips to the content; every table can be scrolled by keys."""
    with Page(browser, address) as shown:
        shown.page.keyboard.press("Tab")
        assert shown.run("document.activeElement.className") == "skip"
        assert shown.page.locator(".skip").bounding_box()["x"] >= 0
        shown.page.keyboard.press("Enter")
        assert shown.run("location.hash") == "#main"
        tables = shown.run("document.querySelectorAll('table').length")
        stops = shown.run("document.querySelectorAll('.scroll[tabindex=\"0\"]').length")
        assert tables == stops == 11


def test_light_dark_and_paper_have_their_colours(browser, address):
    """The charts are drawn again in the colours of the medium, when the page's own have changed."""
    bars = "document.querySelector('[data-chart=hits] svg path[fill=\"' + one + '\"]')"
    ready = f"(() => {{ const style = getComputedStyle(document.documentElement);\
        const one = style.getPropertyValue('--one').trim();\
        return {bars} !== null && one === '%s'; }})()"
    ground = "getComputedStyle(document.body).backgroundColor"
    with Page(browser, address, color_scheme="light") as shown:
        for medium, one, colour in (
            ({"color_scheme": "light"}, "#0072b2", "rgb(255, 255, 255)"),
            ({"color_scheme": "dark"}, "#56b4e9", "rgb(20, 23, 28)"),
            ({"color_scheme": "dark", "media": "print"}, "#0072b2", "rgb(255, 255, 255)"),
        ):
            shown.page.emulate_media(**medium)
            shown.wait(ready % one)
            assert shown.run(ground) == colour
        assert shown.messages == []


def test_text_can_be_read_on_its_ground(browser, address):
    """Contrast of text to its background is at least 4.5, in light and in dark (WCAG AA)."""
    script = """() => {
        const parts = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = (text) => parts(text).slice(0, 3).map((value) => value / 255)
            .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
        const ground = (element) => {
            for (; element; element = element.parentElement) {
                const colour = getComputedStyle(element).backgroundColor;
                if (parts(colour)[3] !== 0) return colour;
            }
        };
        return [...document.querySelectorAll("p, th, td, dt, dd, li, h1, h2, figcaption, a")]
            .map((element) => {
                const [a, b] = [getComputedStyle(element).color, ground(element)].map(light);
                return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.className];
            }).reduce((least, pair) => pair[0] < least[0] ? pair : least, [99, ""]);
    }"""
    for scheme in ("light", "dark"):
        with Page(browser, address, color_scheme=scheme) as shown:
            least, name = shown.run(script)
            assert least >= 4.5, (scheme, name)


def test_a_narrow_screen_does_not_scroll_sideways(browser, address):
    with Page(browser, address, viewport={"width": 400, "height": 800}) as shown:
        assert shown.run("document.documentElement.scrollWidth") == 400
        widths = shown.run("[...document.querySelectorAll('[data-chart] svg')]"
                           ".map(each => each.getBoundingClientRect().right)")  # fmt: skip
        assert len(widths) == CHARTS and max(widths) <= 400


def test_markup_in_a_name_stays_text(browser, planted, tmp_path):
    """It is in a table, in a chart and in the data, and no script of it runs."""
    hit = {"kind": "cache", "event": "hit", "level": "mount", "name": NASTY, "seconds": 0.001}
    with Page(browser, write(planted, tmp_path, hit)) as shown:
        assert shown.run("document.querySelectorAll('img[src]').length") == 0
        assert NASTY in shown.page.locator("#activity-table").inner_text()
        shown.page.locator("[data-chart=hits]").hover()
        assert shown.run("document.querySelectorAll('img[src]').length") == 0
        assert shown.messages == []


def test_it_can_be_printed(browser, address):
    with Page(browser, address, color_scheme="dark") as shown:
        pdf = shown.page.pdf(format="A4")
        assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
        assert shown.messages == []
