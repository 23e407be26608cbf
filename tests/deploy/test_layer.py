"""The layer: small, the same bytes twice, whole, and cheap to import under the runtime client."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import subprocess
import sys
import zipfile

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
NATIVE = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), "x86_64")
OTHER = {"x86_64": "arm64", "arm64": "x86_64"}[NATIVE]
pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(
        not os.path.exists(f"{ROOT}/scripts/layer.py"), reason="only in the source tree"
    ),
    pytest.mark.skipif(
        HERE not in ("3.11", "3.12", "3.13", "3.14"), reason="no layer for this Python"
    ),
]

APP = """
import os, sys, time
start = time.perf_counter()
from efsstate import cached, checkpoint, model
IMPORTED = 1000 * (time.perf_counter() - start)

@cached(ttl="1d")
def double(number):
    return 2 * number

def handler(event, context):
    import msgpack
    value = double(event)
    with checkpoint("layer", context=context) as job:
        job.save(value)
    names = ("efsstate", "cachetools", "msgpack")
    ours = {n: m for n, m in sys.modules.items()
            if n.split(".")[0] in names and getattr(m, "__file__", "")}
    layer = os.environ["LAYER"]
    elsewhere = [m.__file__ for m in ours.values() if not m.__file__.startswith(layer)]
    uncompiled = sorted(n for n, m in ours.items()
                        if m.__file__.endswith(".py") and not os.path.exists(m.__cached__))
    return {"value": value, "imported": IMPORTED, "packer": msgpack.Packer.__module__,
            "elsewhere": elsewhere, "uncompiled": uncompiled}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the zips for this Python and both architectures, and one of them twice."""
    folder = tmp_path_factory.mktemp("layer")
    wheels = glob.glob(f"{ROOT}/dist/efsstate-*.whl")
    if not wheels:
        made = subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            pytest.skip(f"no wheel in dist/, and none could be built: {made.stderr[-200:]}")
        wheels = glob.glob(f"{folder}/efsstate-*.whl")
    script = [sys.executable, f"{ROOT}/scripts/layer.py", "--wheel", wheels[0], "--python", HERE]
    for out, architectures in (("one", [NATIVE, OTHER]), ("two", [NATIVE])):
        (folder / out).mkdir()
        done = subprocess.run(
            [*script, "--out", folder / out, "--arch", *architectures],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and "No matching distribution" in done.stderr + done.stdout:
            pytest.skip("no package index can be reached")
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def path(built, architecture, which="one"):
    return str(built / which / f"efsstate-layer-python{HERE}-{architecture}.zip")


def test_both_are_under_a_megabyte(built):
    for architecture in (NATIVE, OTHER):
        assert os.path.getsize(path(built, architecture)) < 1_000_000


def test_two_builds_have_the_same_bytes(built):
    digests = set()
    for which in ("one", "two"):
        with open(path(built, NATIVE, which), "rb") as file:
            digests.add(hashlib.sha256(file.read()).hexdigest())
    assert len(digests) == 1


def test_each_has_its_own_machine_code(built):
    machines = {}
    for architecture in (NATIVE, OTHER):
        with zipfile.ZipFile(path(built, architecture)) as packed:
            assert packed.testzip() is None
            assert all(name.startswith("python/") for name in packed.namelist())
            libraries = [name for name in packed.namelist() if name.endswith(".so")]
            assert libraries
            machines[architecture] = {
                int.from_bytes(packed.read(name)[18:20], "little") for name in libraries
            }
    assert machines == {"x86_64": {62}, "arm64": {183}}


def test_the_handlers_that_it_is_for_are_whole(built, tmp_path):
    """They import with nothing but the layer; the publisher imports boto3 at its first call."""
    with zipfile.ZipFile(path(built, NATIVE)) as packed:
        packed.extractall(tmp_path)
    program = (
        "import efsstate.publisher, efsstate.janitor, efsstate.ops\n"
        "import efsstate.deploy.diagnosis.doctor as d; print(d.handler({'size': 0})['schema'])"
    )
    environment = {
        "PYTHONPATH": str(tmp_path / "python"),
        "EFSSTATE_ROOT": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stdout.strip() == "efsstate.doctor", done.stderr


def test_all_comes_from_the_layer_compiled(built, tmp_path):
    from efsstate.testing import Function

    with zipfile.ZipFile(path(built, NATIVE)) as packed:
        packed.extractall(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "layer_app.py").write_text(APP)
    (tmp_path / "root").mkdir()
    layer = str(tmp_path / "python")
    environment = {
        "EFSSTATE_ROOT": str(tmp_path / "root"),
        "LAYER": layer,
        "PYTHONPATH": os.pathsep.join([layer, *(p for p in sys.path if p)]),
    }
    with Function(
        "layer_app.handler",
        path=tmp_path / "code",
        environment=environment,
        timeout=30,
        memory=1769,
    ) as function:
        result = function.invoke(21)
    assert result.error is None, result.logs
    print(
        f"import of cached, checkpoint and model: {result.value['imported']:.1f} ms; "
        f"init {1000 * result.init_duration:.0f} ms"
    )
    assert result.value["value"] == 42
    assert result.value["elsewhere"] == []
    assert result.value["uncompiled"] == []
    assert result.value["packer"] == "msgpack._cmsgpack", "the trimmed library was not loaded"
