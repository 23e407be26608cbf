"""The image service, whole: real model, real pictures, real runtime client."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MISSING = [
    name
    for name in ("rapidocr", "onnxruntime", "skimage")
    if importlib.util.find_spec(name) is None
]
pytestmark = [
    pytest.mark.runtime,
    pytest.mark.slow,
    # In CI they are installed; if they are not, these tests must fail and not pass by.
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("CI"),
        reason=f"not installed: {', '.join(MISSING)} (make demo)",
    ),
]


def demo(root):
    done = subprocess.run(
        [sys.executable, "-m", "examples.image_service", "--root", str(root)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(done.stdout, done.stderr)
    return done


def test_the_main_job_runs_and_every_answer_is_right(tmp_path):
    done = demo(tmp_path)
    assert done.returncode == 0
    assert "Model loads: A 1, B 1, C 1. 12 answers, 4 of them computed." in done.stdout
    assert (
        "killed by its timeout: coins.png hangs" in done.stdout
        and "began at coins.png" in done.stdout
    )
    assert re.search(r"26 answers from the mount in .*; model loads: 0\.", done.stdout)
    assert re.search(r"^64 answers compared, \d+ checks held, 0 failed", done.stdout, re.MULTILINE)


def test_a_wrong_answer_on_the_mount_makes_the_exit_code_1(tmp_path, monkeypatch):
    """Another function of the service's name leaves its own result for the scanned page."""
    from efsstate import cached

    @cached(name="ocr-text", version=1, ttl="30d", root=str(tmp_path))
    def text_of(image: bytes):
        return [("Region-based nonsense", 0.9)]

    import skimage

    with open(os.path.join(os.path.dirname(skimage.__file__), "data", "page.png"), "rb") as file:
        text_of(file.read())
    done = demo(tmp_path)
    assert done.returncode == 1
    assert "WRONG: page.png: [['Region-based nonsense', 0.9]] instead of" in done.stdout
