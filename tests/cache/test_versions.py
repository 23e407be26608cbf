"""Values of libraries, written beside one version of each and read beside another, both ways."""

import importlib.metadata
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
OLDER_TORCH = "torch==2.13.0"
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
TENSORS = [
    "torch.arange(6.0).reshape(2, 3)",
    "torch.arange(6.0).reshape(2, 3).T",
    "torch.arange(10)[::3]",
    "torch.tensor([1.5, -0.0, float('inf')], dtype=torch.float64)",
    "torch.tensor([1.5, 2.5], dtype=torch.float16)",
    "torch.tensor([1.5, 2.5], dtype=torch.bfloat16)",
    "torch.tensor([1.0, 2.0]).to(torch.float8_e5m2)",
    "torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)",
    "torch.tensor([1 + 2j])",
    "torch.tensor([True, False])",
    "torch.tensor([255, 0], dtype=torch.uint8)",
    "torch.tensor([-(2**63)], dtype=torch.int64)",
    "torch.tensor([2**16 - 1], dtype=torch.uint16)",
    "torch.tensor(7)",
    "torch.zeros(0, 3)",
    "{'weights': [torch.ones(2), torch.zeros(1, 1)], 'step': 3}",
]
LIBRARIES = """
import dateutil.tz, numpy as np, pandas as pd, polars as pl
from PIL import Image
import kinds
"""
PROGRAM = """
import base64, datetime as dt, json, sys
exec(sys.argv[2])
from efsstate.format import codec

def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, (dict, list)):
        pairs = zip(a.items(), b.items()) if isinstance(a, dict) else zip(a, b)
        return len(a) == len(b) and all(map(same, *zip(*pairs)))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if "torch" in globals() and isinstance(a, torch.Tensor):
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)
    if "np" not in globals():
        return a == b
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


def run(libraries, how, given, folder, imports=LIBRARIES):
    # Before the libraries of this interpreter.
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{folder}:{libraries}"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, how, imports]
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


@pytest.fixture(scope="module")
def older_torch(tmp_path_factory):
    """The folder of an older torch than this interpreter's, without what it depends on."""
    folder = str(tmp_path_factory.mktemp("torch"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    done = subprocess.run([*command, OLDER_TORCH], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this version can't be had: {done.stderr[-300:]}")
    probe = subprocess.run(
        [sys.executable, "-c", "import torch"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": folder},
    )
    if probe.returncode:  # a build for a graphics card needs the libraries that it depends on
        pytest.skip(f"this version can't be imported alone: {probe.stderr[-300:]}")
    yield folder
    shutil.rmtree(folder)


def test_tensors_come_back_in_another_version(older_torch, tmp_path):
    """Written beside this interpreter's torch and read beside an older one, both ways."""
    newer = importlib.metadata.version("torch").partition("+")[0]
    if newer == OLDER_TORCH.partition("==")[2]:
        pytest.skip(f"{OLDER_TORCH} is the newest here")
    folders = {"newer": "", "older": older_torch}
    written = {
        name: run(path, "write", TENSORS, tmp_path, "import torch")
        for name, path in folders.items()
    }
    assert written["newer"] == written["older"]
    for name, path in folders.items():
        other = "older" if name == "newer" else "newer"
        answers = run(path, "read", written[other], tmp_path, "import torch")
        print(f"{other} to {name}: {answers}")
        assert set(answers.values()) == {"equal"}, answers
