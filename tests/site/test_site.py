"""The site: every public name is on it, every link leads somewhere, and a browser can read it."""

import functools
import html.parser
import http.server
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse

import pytest

import efsstate

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    not (ROOT / "mkdocs.yml").exists(), reason="only in the source tree"
)


@functools.cache
def hook():
    specification = importlib.util.spec_from_file_location("site_hook", ROOT / "scripts/site.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_name_once():
    lists = [names for _, _, names in hook().REFERENCE.values() if isinstance(names, list)]
    names = [name for part in lists for name in part]
    assert sorted(names) == sorted(set(efsstate.__all__) - {"__version__"})


def test_the_reference_has_every_handler():
    """The modules that a stack deploys as they are define `handler`."""
    package = ROOT / "src" / "efsstate"
    handlers = [
        path.stem
        for path in sorted(package.glob("*.py"))
        if re.search(
            r"^def handler\(|^    def handler\(|^handler = ", path.read_text(), re.MULTILINE
        )
    ]
    assert sorted(hook().HANDLERS) == handlers


def test_the_page_of_the_command_has_every_command():
    text = {page: text for page, _, text in hook().generated()}["reference/command.md"]
    for name in hook().COMMANDS:
        assert f"\n### efsstate {name}\n" in text
    assert "\n#### efsstate checkpoint break\n" in text


def test_every_page_of_docs_is_in_the_navigation():
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    listed |= set(re.findall(r'"(\S+\.md)"', (ROOT / "scripts/site.py").read_text()))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not page.startswith("lint/")} - listed == set()


class Links(html.parser.HTMLParser):
    """The targets of the links of a page, and the anchors that others may name."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        for name in ("href", "src"):
            if values.get(name) is not None and tag in ("a", "img", "script", "link"):
                self.targets.append(values[name])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.heavy
def test_no_link_and_no_anchor_is_dead(built):
    pages = {path: Links(path.read_text()) for path in built.rglob("*.html")}
    assert len(pages) > 100
    dead = []
    for path, links in pages.items():
        for target in links.targets:
            address = urllib.parse.urlparse(target)
            if address.scheme or address.netloc or path.name == "404.html":
                continue
            file = (path.parent / urllib.parse.unquote(address.path)).resolve()
            file = file / "index.html" if file.is_dir() else file
            if not address.path:
                file = path
            if not file.exists():
                dead.append((str(path), target))
            anchor = urllib.parse.unquote(address.fragment)
            if anchor and file in pages and anchor not in pages[file].anchors:
                dead.append((str(path), target))
    assert dead == []


@pytest.fixture(scope="module")
def address(built):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    serve = functools.partial(Quiet, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "scripts/packages installs Chromium"
    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        running = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield running
        running.close()


@pytest.mark.heavy
@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_shows_each_page_without_an_error(built, address, browser, width):
    """No message in the console, no request to another host, and nothing wider than the screen."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(120_000)
    messages, requests = [], []
    page.on("console", lambda message: messages.append((page.url, message.text)))
    page.on("pageerror", lambda error: messages.append((page.url, str(error))))
    page.on("request", lambda request: requests.append(request.url))
    wide = []
    for path in sorted(built.rglob("*.html")):
        name = str(path.relative_to(built))
        if name == "404.html" or (name.startswith("lint/") and path.stem[-1] != "1"):
            continue
        page.goto(address + name)
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(name)
    page.close()
    assert messages == []
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert wide == []


@pytest.mark.heavy
def test_search_finds_a_page(address, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(address + "index.html")
    page.fill("input.md-search__input", "fencing token")
    page.wait_for_selector(".md-search-result__item a")
    targets = page.eval_on_selector_all(".md-search-result__item a", "all => all.map(a => a.href)")
    page.close()
    assert any("design.html" in target or "checkpoints.html" in target for target in targets)


@pytest.mark.heavy
def test_the_page_is_as_dark_as_the_desktop(address, browser):
    for scheme, darkest, lightest in (("dark", 0, 80), ("light", 200, 255)):
        page = browser.new_page(color_scheme=scheme)
        page.goto(address + "index.html")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.close()
        assert all(darkest <= int(n) <= lightest for n in re.findall(r"\d+", colour)[:3]), colour
