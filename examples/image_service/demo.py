"""Run the service and the batch job here, under the real Lambda runtime client, and check them.

python -m examples.image_service [--root FOLDER]
"""

import argparse
import base64
import glob
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from batch import read_texts
from ocr import Reader, packaged_models

from efsstate import checkpoint, publish
from efsstate.testing import Function

HERE = os.path.dirname(os.path.abspath(__file__))
KNOWN = {  # what a person reads in the picture, whatever the model makes of the rest
    "page.png": [
        "Region-based segmentation",
        "Let us first determine markers of the coins and the",
        "background. These markers are pixels that we can label",
        "unambiguously as either object or background. Here,",
        "histogram of grey values:",
    ],
    "motorcycle_right.png": ["YAMAHA"],
}
HANGS = "coins.png"  # the picture whose upload never ends, until somebody repairs it
SERVICE_TIMEOUT, BATCH_TIMEOUT = 30, 10  # seconds, at least
LOADS = 2  # how often the model could be loaded within a timeout: a busy machine takes longer
ASKED_AGAIN = 20  # seconds after which a result in memory is compared with the mount


class Checks:
    """Everything that has to hold; a failure is printed at once and makes the exit code 1."""

    def __init__(self, expected):
        self.expected = expected
        self.answers = self.failed = self.held = 0

    def that(self, holds, what):
        if holds:
            self.held += 1
        else:
            self.failed += 1
            print(f"  WRONG: {what}", flush=True)

    def answer(self, name, lines):
        """Require that `lines` is the library's own result.

        And holds the words known to be in the image.
        """
        self.answers += 1
        wanted = self.expected[name]
        same = [text for text, _ in lines] == [text for text, _ in wanted]
        close = all(abs(a - b) < 0.01 for (_, a), (_, b) in zip(lines, wanted, strict=False))
        self.that(same and close, f"{name}: {lines} instead of {wanted}")
        text = "\n".join(text for text, _ in lines)
        for known in KNOWN.get(name, ()):
            self.that(known in text, f"{name}: {known!r} is on the picture, but not in the answer")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--root", help="the shared folder; a temporary one without it")
    root = arguments.parse_args().root
    if root:
        return run(os.path.abspath(root))
    with tempfile.TemporaryDirectory(prefix="efsstate-demo-") as folder:
        return run(folder)


def run(root):
    began = time.monotonic()
    pictures = packaged_pictures()

    title("Before: the library alone, without efsstate")
    started = time.monotonic()
    reader = Reader(packaged_models())
    loaded = time.monotonic()
    checks = Checks({name: reader(image) for name, image in pictures.items()})
    alone = time.monotonic() - started
    least = round(LOADS * (loaded - started))
    timeout, batch_timeout = max(SERVICE_TIMEOUT, least), max(BATCH_TIMEOUT, least)
    print(
        f"  Model loaded in {loaded - started:.1f} s, {len(pictures)} photographs and scans read "
        f"in {alone - loaded + started:.1f} s."
    )
    print(
        "  Every answer below is compared with these, and with the words known to be on two of "
        "them."
    )

    title(f"1. The model is published on the shared folder {root}")
    started = time.monotonic()
    version = publish("ocr", packaged_models(), root=root)
    size = sum(
        os.path.getsize(path) for path in glob.glob(os.path.join(packaged_models(), "*.onnx"))
    )
    print(
        f"  Model ocr, version {version}: {size / 1e6:.1f} MB in {time.monotonic() - started:.1f} s"
    )

    functions = {"path": HERE, "environment": {"EFSSTATE_ROOT": root}, "memory": 1024}
    with Function("witness.service", name="images", timeout=timeout, **functions) as service:
        serve(service, pictures, checks)
    if not checks.failed:
        with Function(
            "witness.batch_job", name="images-batch", timeout=batch_timeout, **functions
        ) as batch:
            read_all(batch, root, pictures, checks, batch_timeout)
    if not checks.failed:
        with Function("witness.service", name="images", timeout=timeout, **functions) as service:
            again(service, pictures, checks, alone)

    print()
    print(
        f"{checks.answers} answers compared, {checks.held} checks held, {checks.failed} failed; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if checks.failed else 0


def serve(service, pictures, checks):
    """Three environments: each loads the model once, and what one has read the others need not."""
    title("2. Requests, to three Lambda environments")
    table = Table(
        ("request", 25),
        ("environment", 13),
        ("picture", 22),
        ("answer comes from", 24),
        ("seconds", 9),
        ("read", 0),
    )
    environments = dict(zip("ABC", (service.environment() for _ in range(3)), strict=False))
    last, began = {}, time.monotonic()

    def ask(what, letter, name):
        result = environments[letter].invoke({"image": base64.b64encode(pictures[name]).decode()})
        if result.error:
            checks.that(False, f"{name} in environment {letter}: {result.error} {result.logs}")
            return None
        lines, saw = result.value["lines"], result.value["witness"]
        source = saw["from"]
        if saw["model_loads"] > last.get(letter, {"model_loads": 0})["model_loads"]:
            source += ", model loaded"
        last[letter] = saw
        checks.answer(name, lines)
        table.row(what, letter, name, source, f"{result.duration:.3f}", excerpt(lines))
        return saw["from"]

    for letter, name in zip(
        "ABC", ("page.png", "motorcycle_right.png", "coffee.png"), strict=False
    ):
        checks.that(
            ask("first of its kind", letter, name) == "computed", f"{name} should be computed"
        )
    for letter, name in zip(
        "BCA", ("page.png", "motorcycle_right.png", "coffee.png"), strict=False
    ):
        checks.that(
            ask("known to another", letter, name) == "mount", f"{name} should come from the mount"
        )
    for letter, name in zip(
        "ABC", ("page.png", "motorcycle_right.png", "coffee.png"), strict=False
    ):
        nearest = "memory" if last[letter]["has_memory"] else "mount"
        source = ask("known to this one", letter, name)
        # Memory asks the mount again after 20 s, which a busy machine may need for the first row.
        is_due = time.monotonic() - began > ASKED_AGAIN and source == "mount"
        checks.that(source == nearest or is_due, f"{name} should come from {nearest}")
    with ThreadPoolExecutor() as pool:
        sources = list(
            pool.map(lambda letter: ask("one new, to all at once", letter, "retina.jpg"), "ABC")
        )
    checks.that(
        sources.count("computed") == 1, f"retina.jpg should be computed once, came from {sources}"
    )

    loads = {letter: value["model_loads"] for letter, value in last.items()}
    computed = sum(value["computed_in_all"] for value in last.values())
    print(
        f"  Model loads: {', '.join(f'{letter} {count}' for letter, count in loads.items())}.",
        end=" ",
    )
    print(f"12 answers, {computed} of them computed.")
    checks.that(
        set(loads.values()) == {1}, f"each environment should have loaded the model once: {loads}"
    )
    checks.that(
        computed == 4, f"4 pictures should have been computed once each, not {computed} times"
    )


def read_all(batch, root, pictures, checks, timeout):
    """Let a timeout kill a batch job in the middle, and another environment bring it to its end."""
    title(f"3. A batch job over all {len(pictures)} pictures, with a timeout of {timeout} s")
    folder = os.path.join(root, "shared-data", "pictures")
    os.makedirs(folder, exist_ok=True)
    for name, image in pictures.items():
        if name != HANGS:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(image)
    stuck = os.path.join(folder, HANGS)
    if os.path.lexists(stuck):
        os.unlink(stuck)
    os.mkfifo(stuck)  # whoever reads it waits for ever, as on a mount that hangs

    job = f"demo-{time.time_ns()}"
    table = Table(
        ("run", 5),
        ("environment", 13),
        ("done", 6),
        ("computed", 10),
        ("from mount", 12),
        ("seconds", 9),
        ("how it ended", 0),
    )
    letters = iter("DEFGHIJKLMNOPQRSTUVWXYZ")
    environment, letter = batch.environment(), next(letters)
    known, killed, counted, resumed_at = set(), 0, 0, None
    for number in range(1, 20):
        result = environment.invoke({"job": job, "folder": folder, "shards": 1})
        seconds = f"{result.duration:.1f}"
        if result.timed_out:
            killed += 1
            saved = read_texts({"job": job}, root)  # from outside, at any time
            done = sorted(set(saved) - known)
            counted += len(done)
            table.row(
                number,
                letter,
                len(done),
                "-",
                "-",
                seconds,
                f"killed by its timeout: {HANGS} hangs",
            )
            os.unlink(stuck)
            with open(stuck, "wb") as file:
                file.write(pictures[HANGS])
            environment, letter = batch.environment(), next(letters)
        elif result.error:
            checks.that(False, f"run {number}: {result.error} {result.logs}")
            return
        else:
            done = result.value["done"]
            counted += len(done)
            computed = result.value["witness"]["computed"]
            ended = (
                "finished" if result.value["finished"] else "stopped in time, to be called again"
            )
            if killed and resumed_at is None and done:
                resumed_at = done[0]
                ended += f"; began at {resumed_at}"
            table.row(number, letter, len(done), computed, len(done) - computed, seconds, ended)
        checks.that(
            known.isdisjoint(done), f"run {number} did again what was done: {known & set(done)}"
        )
        known.update(done)
        if result.value and result.value["finished"]:
            break
    checks.that(
        resumed_at == HANGS,
        f"the run after the killed one should begin at {HANGS}, not at {resumed_at}",
    )
    checks.that(killed == 1, f"one run should have been killed, not {killed}")
    checks.that(
        counted == len(pictures),
        f"{len(pictures)} pictures should have been done once each, not {counted}",
    )
    checks.that(bool(result.value and result.value["finished"]), "the job should be finished")
    texts = (result.value or {}).get("texts") or {}
    checks.that(set(texts) == set(pictures), f"missing: {set(pictures) - set(texts)}")
    for name, lines in texts.items():
        checks.answer(name, lines)
    shard = checkpoint(f"texts/{job}", root=root).shards(1).shard(0)
    size = shard.status()["bytes"]
    checks.that(size < 1000, f"a save should have a position alone, and has {size} bytes")
    print(f"  {counted} pictures done, none twice and none left out.")


def again(service, pictures, checks, alone):
    """A fresh environment has everything at hand, and never loads the model."""
    title("4. A fresh environment, asked for all of them")
    environment = service.environment()
    seconds, sources = 0.0, []
    for name, image in pictures.items():
        result = environment.invoke({"image": base64.b64encode(image).decode()})
        if result.error:
            checks.that(False, f"{name}: {result.error} {result.logs}")
            return
        checks.answer(name, result.value["lines"])
        saw = result.value["witness"]
        sources.append(saw["from"])
        seconds += result.duration
    print(
        f"  {sources.count('mount')} answers from the mount in {seconds:.2f} s (the library "
        f"alone: {alone:.1f} s); ",
        end="",
    )
    print(f"model loads: {saw['model_loads']}.")
    checks.that(
        set(sources) == {"mount"} and saw["model_loads"] == 0,
        f"nothing should be computed: {sources}",
    )


def packaged_pictures():
    """The photographs and scans that the package scikit-image carries, as file name and bytes."""
    import skimage

    pictures = {}
    for kind in ("*.png", "*.jpg"):
        for path in glob.glob(os.path.join(os.path.dirname(skimage.__file__), "data", kind)):
            with open(path, "rb") as file:
                pictures[os.path.basename(path)] = file.read()
    return dict(sorted(pictures.items()))


def excerpt(lines):
    text = " / ".join(text for text, _ in lines) or "(no text)"
    return text if len(text) <= 44 else text[:41] + "..."


def title(text):
    print(f"\n{text}\n", flush=True)


class Table:
    """Columns of a fixed width, each row printed when it is known."""

    def __init__(self, *columns):
        self._widths = [width for _, width in columns]
        self.row(*(name for name, _ in columns))
        print("  " + "-" * (sum(self._widths) + 24))

    def row(self, *values):
        print(
            "  "
            + "".join(
                f"{value!s:<{width}}" for value, width in zip(values, self._widths, strict=False)
            ).rstrip(),
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
