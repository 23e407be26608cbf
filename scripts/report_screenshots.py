"""Draw docs/img/report*.png: `efsstate report` on a root like that of a service in production.

    python scripts/report_screenshots.py [FOLDER]

With FOLDER the whole page is drawn there, also on paper and 400 pixels wide, to be looked at.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, HERE)

from playwright.sync_api import sync_playwright  # noqa: E402 - the path comes first
from scripts.screenshot import CACHES, plant  # noqa: E402

from efsstate import checkpoint, dataset  # noqa: E402
from efsstate.cli import app  # noqa: E402

PLAN = 'stored = "40GiB"\nmodel = "32MiB"\nenvironments = 200\ncold_starts = "5000/day"\n'
PLAN += 'hits = "2M/day"\nputs = "50k/day"\nentry = "8KiB"\ntimeout = "30s"\n'


def record(path):
    """Write the events of a day: hit rates that rise, and a sweep every three hours."""
    chance, start = random.Random(7), time.time() - 86_400
    with open(path, "w") as file:
        for i in range(8000):
            name = chance.choices([name for name, *_ in CACHES], [4, 3, 5, 1])[0]
            event = {"time": start + 10.8 * i, "kind": "cache", "name": name, "event": "hit"}
            drawn = chance.random() - 0.1 * i / 8000
            if drawn < 0.4:
                event |= {"level": "memory", "seconds": 0.0}
            elif drawn < 0.8:
                event |= {"level": "mount", "seconds": chance.lognormvariate(-6.4, 0.4)}
            else:
                event |= {"event": "miss", "seconds": chance.lognormvariate(-1, 0.6)}
            file.write(json.dumps(event) + "\n")
        for i in range(8):
            count = chance.randrange(40, 400)
            sums = {"removed": count, "removed_bytes": count * 24_000, "looked": 3090}
            event = {"time": start + 10_800 * i, "kind": "sweep", "event": "sweep", "name": "efs"}
            file.write(json.dumps(event | sums | {"reasons": {"expired": count}}) + "\n")


def write_page(folder):
    root = f"{folder}/efs"
    os.mkdir(root)
    plant(root)
    dataset("reviews/raw", root=root).add(b"x" * 900_000, ".jsonl", key="day-1")
    with checkpoint("resize/2026-11", root=root).shards(16) as shards:
        for shard in shards:
            if shard.index < 11:
                shard.finish()
    record(f"{folder}/run.jsonl")
    with open(f"{folder}/plan.toml", "w") as file:
        file.write(PLAN)
    page = f"{folder}/report.html"
    line = ["report", "--root", root, "-o", page, "--title", "image service"]
    app.run([*line, "--events", f"{folder}/run.jsonl", "--plan", f"{folder}/plan.toml"])
    with open(page) as file:
        text = file.read()
    with open(page, "w") as file:
        file.write(text.replace(root, "/mnt/efs"))
    return page


def main(target):
    chromium = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page = f"file://{write_page(folder)}"
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shots = [("report", "light", 1000), ("report-dark", "dark", 1000)]
        if target:
            shots += [("narrow", "light", 400), ("narrow-dark", "dark", 400)]
        for name, scheme, width in shots:
            size = {"width": width, "height": 1150}
            shown = browser.new_page(viewport=size, color_scheme=scheme)
            shown.goto(page)
            while not shown.evaluate("document.documentElement.dataset.drawn"):
                time.sleep(0.1)
            if name == "report-dark" and not target:
                shown.locator("#cost").scroll_into_view_if_needed()
                shown.evaluate("document.getElementById('cost').scrollIntoView()")
            path = f"{target or f'{HERE}/docs/img'}/{name}.png"
            shown.screenshot(path=path, full_page=bool(target))
        if target:
            shown.pdf(path=f"{target}/report.pdf", format="A4")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
