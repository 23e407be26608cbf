"""The site: every public name is on it, every link leads somewhere, and a browser can read it."""

import ast
import functools
import html.parser
import http.server
import importlib
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
from efsstate import errors
from efsstate.cli import schema

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


def listed():
    """Return the names in the lists of the reference, dotted or not."""
    lists = [names for _, _, names in hook().REFERENCE.values() if isinstance(names, list)]
    return [name for part in lists for name in part]


def test_the_reference_has_every_public_name_once():
    names = [name for name in listed() if "." not in name]
    assert sorted(names) == sorted(set(efsstate.__all__) - {"__version__"})


def public_definitions(path):
    """Return the names that a module defines at its top, but for private ones."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text())
    return [each.name for each in tree.body if isinstance(each, kinds) and each.name[0] != "_"]


def test_the_reference_has_the_public_names_of_submodules():
    """Those of modules that users name in their own code or configuration."""
    package = ROOT / "src" / "efsstate"
    dotted = {name for name in listed() if "." in name}
    paths = [*(package / "adapters").glob("[a-z]*.py"), package / "testing" / "plugin.py"]
    modules = {".".join(path.relative_to(package).with_suffix("").parts): path for path in paths}
    names = {
        f"{module}.{name}" for module, path in modules.items() for name in public_definitions(path)
    }
    assert names <= dotted
    whole = {names for _, _, names in hook().REFERENCE.values() if isinstance(names, str)}
    assert whole == {"testing", "metrics"} and {"workers", "worker"} <= set(hook().HANDLERS)


def test_the_reference_has_every_error_event_metric_and_log_record():
    texts = {page: text for page, _, text in hook().generated()}
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    public = [each.__name__ for each in kinds if each.__module__ == errors.__name__]
    assert {name for name in public if name not in listed()} == {
        name.removeprefix("errors.") for name in listed() if name.startswith("errors.")
    }
    tables = (ROOT / "docs" / "observability.md").read_text()
    begin = tables.index("\n### The metrics\n")
    rows = re.findall(r"^\| .*\|$", tables[begin:], re.MULTILINE)
    rows = [row for row in rows if not row.startswith(("| widget", "|---"))]
    lacking = [row for row in rows if row.split("](")[0] not in texts["reference/events.md"]]
    # The table of widgets and alarms is about the template, not about names.
    section = tables.partition("\n## In the template\n")[2].partition("\n## ")[0]
    assert [row for row in lacking if row not in section] == []
    assert len(rows) > 60


def test_the_reference_has_the_documents_and_the_formats():
    texts = {page: text for page, _, text in hook().generated()}
    for name in schema.names():
        assert f"\n## efsstate.{name}\n" in texts["reference/json.md"]
    fields = re.findall(r"^\| `([\w.]+)` \| .+ \| .+ \|$", texts["reference/json.md"], re.MULTILINE)
    assert len(fields) > 400
    pages = (ROOT / "scripts" / "site.py").read_text()
    assert '"format.md"' in pages and '"cli.md"' in pages


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
    assert sorted(set(hook().HANDLERS) - {"worker"}) == handlers


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


def members(value):
    """Return the names of the documented members of a class of ours, inherited or not."""
    owners = [each for each in value.__mro__ if each.__module__.startswith("efsstate.")]
    return {
        name
        for owner in owners
        for name, member in vars(owner).items()
        if name[0] != "_"
        and member.__doc__  # the others are hooks of the framework, with another name's function
        and (callable(member) or isinstance(member, (property, classmethod)))
    }


@pytest.mark.heavy
def test_every_public_method_and_property_is_on_the_site(built):
    """Also those that a class has from a base that is no public name."""
    text = "".join(path.read_text() for path in (built / "reference").glob("*.html"))
    lacking = []
    for name in listed():
        module, _, last = name.rpartition(".")
        package = importlib.import_module(f"efsstate.{module}") if module else efsstate
        value = getattr(package, last)
        if isinstance(value, type):
            place = f"{value.__module__}.{value.__qualname__}"
            lacking += [
                f"{place}.{each}"
                for each in sorted(members(value))
                if f'id="{place}.{each}"' not in text
            ]
    assert lacking == []


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
