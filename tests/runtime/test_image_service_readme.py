"""Every command of the image service's README runs, and the texts are where it says."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from tests.s3 import moto_url, s3  # noqa: F401 - fixtures

import efsstate

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "image_service"
MISSING = [
    name
    for name in ("rapidocr", "onnxruntime", "skimage")
    if importlib.util.find_spec(name) is None
]
# In place of commands that need Docker, build a wheel, or need an account; the others are real.
STAND_INS = """
python() { "$PYTHON" "$@"; }
efsstate() { "$PYTHON" -m efsstate.cli.main "$@"; }
aws() { "$PYTHON" -m tests.runtime.aws_stand_in "$@"; }
make() { mkdir -p dist && touch dist/efsstate-0.1.0-py3-none-any.whl; }
sam() { echo "sam $*" >> sam.log; }
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("CI"),
        reason=f"not installed: {', '.join(MISSING)} (make demo)",
    ),
]


def test_every_command_of_the_readme_runs(s3, tmp_path):  # noqa: F811 - the fixture
    import skimage

    text = (FOLDER / "README.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    script = STAND_INS + "".join(blocks).replace(
        "BUCKET=pictures-and-models", f"BUCKET={s3.bucket}"
    )
    folder = tmp_path / "clone"
    shutil.copytree(FOLDER, folder / "examples" / "image_service")
    shutil.copy(pathlib.Path(skimage.__file__).parent / "data" / "page.png", folder)
    packages = os.path.dirname(os.path.dirname(efsstate.__file__))
    path = [packages, str(ROOT), str(folder / "examples" / "image_service")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", STAND_INS + script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    published, shown, rolled_back = answers
    assert published["finished"] and published["files"] == 3 and published["version"]
    assert (shown["schema"], shown["exit"]) == ("efsstate.checkpoint.show", 0)
    assert shown["finished"] and shown["name"] == "texts/2026-11-23"
    assert rolled_back["schema"] == "efsstate.error", "there is one version, and none before it"
    assert (folder / "examples/image_service/wheels/efsstate-0.1.0-py3-none-any.whl").exists()
    assert "deploy" in (folder / "sam.log").read_text()

    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    read = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert read.returncode == 0, read.stderr
    assert "page.png" in read.stdout and "Region-based segmentation" in read.stdout
