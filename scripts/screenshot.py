"""Draw docs/img/stat.svg: `efsstate stat` on a root like that of a service in production."""

import io
import os
import random
import sys
import tempfile

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, HERE)

from rich.console import Console  # noqa: E402 - the path comes first
from tests.cleanup.conftest import DAY, Tree  # noqa: E402

from efsstate import checkpoint, publish  # noqa: E402
from efsstate.cli import app, output  # noqa: E402

CACHES = (
    ("thumbnails", 420, 48_000, 7),
    ("ocr.text", 610, 21_000, 30),
    ("pricing", 1800, 900, 1),
    ("embeddings", 260, 64_000, 30),
)


def plant(root):
    tree, chance = Tree(root), random.Random(7)
    for name, count, most, days in CACHES:
        tree.policy(name, shortest=days * DAY, longest=days * DAY)
        for i in range(count):
            tree.entry(
                name,
                i,
                age=chance.random() * 1.15 * days * DAY,
                ttl=days * DAY,
                size=chance.randrange(most // 4, most),
            )
    for date in ("2026-11-21", "2026-11-22"):
        with checkpoint(f"import/{date}", root=root) as job:
            for number in job.resume(range(1000)):
                job.state = number
    for name, size in (("resnet50", 9_800_000), ("detector", 4_700_000)):
        path = f"{root}/shared-data/{name}.onnx"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(os.urandom(size))
        publish(name, path, root=root)


def main(target):
    with tempfile.TemporaryDirectory() as root:
        plant(root)
        out = output.Output()
        out.console = Console(
            record=True, width=96, force_terminal=True, color_system="truecolor", file=io.StringIO()
        )
        out.console.print("$ efsstate stat", style="bold", highlight=False)
        app.efsstate.main(["stat", "--root", root], standalone_mode=False, obj=out)
        out.console.save_svg(target, title="efsstate stat")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else f"{HERE}/docs/img/stat.svg")
