"""Run the pipeline under the real Lambda runtime client, and check what it promises.

python -m examples.training [--root FOLDER]
"""

import argparse
import os
import pathlib
import tempfile
from concurrent.futures import ThreadPoolExecutor

import collect
import numpy as np
import prepare
from sklearn.datasets import load_digits

from efsstate import checkpoint, dataset
from efsstate.testing import Function

HERE = os.path.dirname(os.path.abspath(__file__))
PEOPLE, PAGES, DIGITS_A_PAGE = 6, 8, 24
DIGITS = load_digits()


class Checks:
    """Everything that has to hold; a failure is printed at once and makes the exit code 1."""

    def __init__(self):
        self.held = self.failed = 0

    def that(self, holds, what):
        self.held += bool(holds)
        self.failed += not holds
        print(f"  {'ok   ' if holds else 'WRONG'} {what}", flush=True)


def function(handler, root, **options):
    """Return a function whose mount is the folder `root`."""
    return Function(
        handler,
        path=HERE,
        name=handler.replace(".", "-"),
        environment={"EFSSTATE_ROOT": root},
        memory=1024,
        timeout=300,
        init_timeout=300,
        **options,
    )


def page_of(person, page):
    """Return the event that brings one page."""
    first = (person * PAGES + page) * DIGITS_A_PAGE
    rows = np.arange(first, first + DIGITS_A_PAGE) % len(DIGITS.target)
    images, labels = DIGITS.data[rows].astype(int), DIGITS.target[rows]
    return {"person": person, "page": page, "images": images.tolist(), "labels": labels.tolist()}


def gather(root, checks):
    """Three collectors add the pages, and each event comes twice."""
    events = [page_of(person, page) for person in range(PEOPLE) for page in range(PAGES)] * 2
    with function("collect.handler", root, concurrency=3) as collectors:
        with ThreadPoolExecutor(3) as pool:
            results = [pool.submit(collectors.invoke, event) for event in events]
        added = sum(result.result().value["added"] for result in results)
        used = len(collectors.environments)
    raw = dataset("digits/raw", root=root)
    checks.that(added >= PEOPLE * PAGES, f"{len(events)} events, {used} environments")
    checks.that(len(raw.parts()) == PEOPLE * PAGES, f"{len(raw.parts())} pages, each once")


def clean(root, checks, snapshot):
    """Two workers prepare the pages at once, without a word to each other."""
    with function("prepare.handler", root, concurrency=2) as workers:
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(workers.invoke, {"snapshot": snapshot}) for _ in range(2)]
        counts = [run.result().value["prepared"] for run in runs]
    parts = dataset("digits/clean", root=root).parts()
    checks.that(sum(counts) == len(parts), f"{len(parts)} prepared pages, by two workers: {counts}")


def train(root, checks, snapshot, kills=()):
    """Train, killed after each number of pages in `kills`; return the answer."""
    with function("witness.dying", root) as dying:
        for pages in kills:
            result = dying.invoke({"snapshot": snapshot, "pages": pages})
            checks.that(result.error is not None, f"killed after {pages} more pages")
    with function("train.handler", root) as trainer:
        result = trainer.invoke({"snapshot": snapshot})
    checks.that(result.error is None and result.value["finished"], "trained to the end")
    return result.value


def accuracy(root, version, checks):
    """Serve the model, and return its share of right digits."""
    with function("serve.handler", root) as service:
        answer = service.invoke({"images": DIGITS.data[:600].tolist()}).value["digits"]
    share = sum(int(a == b) for a, b in zip(answer, DIGITS.target[:600], strict=True)) / 600
    checks.that(share > 0.85, f"model {version[:12]} recognises {share:.0%} of 600 digits")


def forget(root, checks, person):
    """Remove all that one person wrote, raw and prepared; show that no new snapshot has it."""
    raw, cleaned = dataset("digits/raw", root=root), dataset("digits/clean", root=root)
    before = raw.at("run-1")
    for page in range(PAGES):
        raw.remove(collect.key_of(person, page))
    for part in before.missing:
        cleaned.remove(part.result_key(prepare.STEP))
    gone = {part.key for part in before.missing}
    after = raw.freeze("run-2")
    checks.that(len(gone) == PAGES, f"the old snapshot names {len(gone)} pages as removed")
    checks.that(not gone & {part.key for part in after}, "the new snapshot has none of them")
    checks.that(len(cleaned.parts()) == (PEOPLE - 1) * PAGES, "nor have the prepared pages")
    files = [p for p in pathlib.Path(root, "datasets").rglob("*.npz") if p.name[:32] in gone]
    checks.that(files == [], "no file of theirs is on the mount")
    with function("collect.handler", root) as collectors:
        again = collectors.invoke(page_of(person, 0)).value["added"]
    checks.that(not again, "and a late event does not bring one back")


def run(root):
    """Run the pipeline below `root`; return the exit code."""
    checks = Checks()
    print("1. Collect")
    gather(root, checks)
    print("2. Prepare")
    clean(root, checks, "run-1")
    print("3. Train, killed twice, and once without a kill")
    killed = train(root, checks, "run-1", kills=(30, 50))
    with tempfile.TemporaryDirectory() as other:
        gather(other, checks)
        clean(other, checks, "run-1")
        straight = train(other, checks, "run-1")
    checks.that(killed["seen"] == straight["seen"], "the same pages in the same order")
    checks.that(killed["version"] == straight["version"], "the same weights, bit for bit")
    print("4. Serve")
    accuracy(root, killed["version"], checks)
    print("5. Remove one person's pages, and train without them")
    forget(root, checks, person=3)
    accuracy(root, train(root, checks, "run-2")["version"], checks)
    saved = checkpoint("training/run-2", root=root).load()
    checks.that(saved is not None, "the second training is finished, too")
    print(f"{checks.held} checks held, {checks.failed} failed")
    return 1 if checks.failed else 0


def main():
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", help="the shared folder; a temporary one without it")
    root = parser.parse_args().root
    if root:
        return run(os.path.abspath(root))
    with tempfile.TemporaryDirectory(prefix="efsstate-training-") as folder:
        return run(folder)
