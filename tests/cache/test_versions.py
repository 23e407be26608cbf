"""Values of libraries, written beside one version of each and read beside another, both ways."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.heavy
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEWEST = ["numpy", "pandas", "pyarrow", "polars", "pillow", "pydantic", "attrs", "python-dateutil"]
OLDER = [
    "numpy==2.1.3", "pandas==2.2.3", "pyarrow==18.1.0", "polars==1.20.0", "pillow==11.0.0",
    "pydantic==2.10.6", "attrs==24.2.0", "python-dateutil==2.8.2",
]  # fmt: skip
KINDS = """
import enum
import attrs, pydantic

class Perm(enum.Flag):
    R = 1
    W = 2

class Model(pydantic.BaseModel):
    x: int
    names: list[str] = []

@attrs.define
class Slotted:
    x: int
    y: list = attrs.field(factory=list)
"""
EXPRESSIONS = [
    "np.arange(6, dtype='<f4').reshape(2, 3)",
    "np.zeros(2, [('a', '<i4'), ('b', '<f8', (2,))])",
    "np.zeros(2, np.dtype((np.record, [('a', '<i4')])))",
    "np.float32(1.5)",
    "np.datetime64('2026-01-01', 's')",
    "pd.DataFrame({'a': [1, 2], 'b': [1.5, None]})",
    "pd.DataFrame({'c': pd.Categorical(['x', 'y', 'x'])})",
    "pd.DataFrame({'n': pd.array([1, None], dtype='Int64')})",
    "pd.Series([1, 2, 3], name='s')",
    "pl.DataFrame({'a': [1, None], 'b': ['x', 'y'], 'c': [[1], [2, 3]]})",
    "pl.Series('s', [1, 2])",
    "Image.new('RGB', (3, 2), (1, 2, 3))",
    "Image.new('RGB', (3, 2), (1, 2, 3)).convert('P')",
    "kinds.Perm.R | kinds.Perm.W",
    "kinds.Model(x=1, names=['a'])",
    "kinds.Slotted(1, [2])",
    "dt.datetime(2026, 7, 2, tzinfo=dateutil.tz.gettz('Europe/Berlin'))",
    "dt.datetime(2026, 7, 2, tzinfo=dateutil.tz.tzutc())",
]
PROGRAM = """
import base64, datetime as dt, json, sys
import dateutil.tz, numpy as np, pandas as pd, polars as pl
from PIL import Image
import kinds
from efsstate.format import codec

def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.dtype.type is b.dtype.type and bool((a == b).all())
    if isinstance(a, (pd.DataFrame, pd.Series, pl.DataFrame, pl.Series)):
        return a.equals(b) and str(getattr(a, "dtypes", "")) == str(getattr(b, "dtypes", ""))
    return a == b

if sys.argv[1] == "versions":
    import importlib.metadata
    json.dump([importlib.metadata.version(name) for name in json.load(sys.stdin)], sys.stdout)
elif sys.argv[1] == "write":
    written = []
    for line in json.load(sys.stdin):
        parts = codec.dumps(eval(line))
        data = b"".join(map(bytes, parts)) if isinstance(parts, list) else bytes(parts)
        written.append((line, base64.b64encode(data).decode()))
    json.dump(written, sys.stdout)
else:
    answers = {}
    for line, data in json.load(sys.stdin):
        try:
            value = codec.loads(bytearray(base64.b64decode(data)))
            answers[line] = "equal" if same(value, eval(line)) else f"another: {value!r:.60}"
        except ValueError as error:
            answers[line] = f"a miss: {error!s:.60}"
    json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of the newest libraries, and of older ones, as pip installs them."""
    installed = {}
    for name, packages in (("newest", NEWEST), ("older", OLDER)):
        folder = installed[name] = str(tmp_path_factory.mktemp(name))
        needed = [*packages, "msgpack", "filelock", "cachetools"]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *needed]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"these versions can't be had: {done.stderr[-300:]}")
    yield installed
    for folder in installed.values():
        shutil.rmtree(folder)


def run(libraries, how, given, folder):
    # Before the libraries of this interpreter.
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{folder}:{libraries}"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, how]
    done = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_each_kind_comes_back_in_another_version(folders, tmp_path):
    """What is not equal is a miss, which costs a computation; it is never another value."""
    (tmp_path / "kinds.py").write_text(KINDS)
    versions = {name: run(folders[name], "versions", NEWEST, tmp_path) for name in folders}
    assert versions["older"] == [pin.partition("==")[2] for pin in OLDER]
    assert not set(zip(NEWEST, versions["older"], strict=True)) & set(
        zip(NEWEST, versions["newest"], strict=True)
    )
    for name, *pair in zip(NEWEST, *versions.values(), strict=True):
        print(f"{name}: {' and '.join(pair)}")
    table = {line: [] for line in EXPRESSIONS}
    for writer in folders:
        written = run(folders[writer], "write", EXPRESSIONS, tmp_path)
        for reader in folders:
            for line, answer in run(folders[reader], "read", written, tmp_path).items():
                table[line].append(answer)
    ways = [f"{writer} to {reader}" for writer in folders for reader in folders]
    print(f"{'':72} {' | '.join(ways)}")
    for line, answers in table.items():
        print(f"{line:72} {' | '.join(answers)}")
    assert not [line for line, answers in table.items() if "another" in " ".join(answers)], table
    assert all(answers[0] == answers[3] == "equal" for answers in table.values()), table
