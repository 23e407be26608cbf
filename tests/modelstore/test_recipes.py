"""Each recipe of docs/models.md is run with the real library.

On a small file that the library itself wrote.
"""

import importlib
import json
import os
import pathlib
import re
import struct
import sys

import pytest

from efsstate import publish

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples" / "models").glob("*.py"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_documents_show_the_examples(name):
    """The text in the documents is the one that is run here."""
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(), re.DOTALL
    )
    code = (ROOT / "examples" / "models" / f"{name}.py").read_text().split('"""', 2)[2].strip()
    code = code.replace("from examples.models.", "from ")  # there the reader has them side by side
    assert code in [block.strip() for block in blocks]


@pytest.fixture
def recipe(root, tmp_path, monkeypatch):
    """`recipe("numpy_array", path)`.

    What the example's model gives when `path` is published under its name.
    """
    monkeypatch.setenv("EFSSTATE_ROOT", root)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kept = []  # as a global keeps it

    def run(name, path):
        sys.modules.pop(f"examples.models.{name}", None)
        module = importlib.import_module(f"examples.models.{name}")
        (made,) = [value for value in vars(module).values() if type(value).__name__ == "Model"]
        publish(made.name, path)
        kept.append(made)
        return made()

    return run


def test_numpy(recipe, tmp_path):
    import numpy as np

    for array in (
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.array(7, "f4"),
        np.zeros((0, 3)),
    ):
        np.save(tmp_path / "e.npy", array)
        loaded = recipe("numpy_array", tmp_path / "e.npy")
        assert (
            loaded.dtype == array.dtype
            and np.array_equal(loaded, array)
            and not loaded.flags.owndata
        )
    np.save(tmp_path / "o.npy", np.array([object], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="runs code"):
        recipe("numpy_array", tmp_path / "o.npy")


def test_safetensors_header_is_checked_against_hostile_sizes(recipe, tmp_path):
    """Offsets outside of the file, sizes that do not fit the shape.

    Headers that are longer than the file.
    """
    good = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    data = struct.pack("<6f", *range(6))

    def write(about, length=None, name="w"):
        text = json.dumps(about).encode()
        (tmp_path / name).write_bytes(
            struct.pack("<Q", len(text) if length is None else length) + text + data
        )
        return tmp_path / name

    assert recipe("safetensors_views", write(good))["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    bad = [
        {"data_offsets": [0, 28]},
        {"data_offsets": [-24, 0]},
        {"data_offsets": [24, 0]},
        {"shape": [2, 2]},
        {"shape": [-2, -3]},
        {"shape": [2**40, 2**40]},
        {"data_offsets": [0.0, 24.0]},
        {"shape": [2, 3.0]},
    ]
    for change in bad:
        with pytest.raises(ValueError, match="tensor 'a'"):
            recipe("safetensors_views", write({"a": good["a"] | change}))
    for length in (10**6, 2**63, 2**64 - 1):
        with pytest.raises(ValueError, match="its header is"):
            recipe("safetensors_views", write(good, length))
    (tmp_path / "short").write_bytes(b"123")
    with pytest.raises(ValueError, match="shorter"):
        recipe("safetensors_views", tmp_path / "short")


def wanted(name):
    return (
        pytest.importorskip(name)
        if os.environ.get("CI", "").lower() != "true"
        else importlib.import_module(name)
    )


def test_safetensors(recipe, tmp_path):
    np = wanted("numpy")
    save, load = wanted("safetensors.numpy").save_file, wanted("safetensors.numpy").load_file
    tensors = {
        "a": np.random.rand(50, 70).astype("f4"),
        "b": np.arange(9, dtype="i8"),
        "c": np.zeros((0, 4), "f2"),
        "d": np.array([True, False]),
    }
    save(tensors, tmp_path / "w.safetensors", metadata={"format": "np"})
    theirs = load(tmp_path / "w.safetensors")
    loaded = recipe("safetensors_views", tmp_path / "w.safetensors")
    assert loaded.keys() == theirs.keys()
    for name in theirs:
        assert loaded[name].dtype == theirs[name].dtype and np.array_equal(
            loaded[name], theirs[name]
        )
        assert not loaded[name].flags.owndata


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_safetensors_torch(recipe, tmp_path):
    torch = wanted("torch")
    tensors = {
        "a": torch.rand(5, 7),
        "b": torch.arange(9).to(torch.bfloat16),
        "c": torch.zeros(0, 4),
        "d": torch.tensor([True, False]),
    }
    wanted("safetensors.torch").save_file(tensors, tmp_path / "w.safetensors")
    loaded = recipe("safetensors_torch", tmp_path / "w.safetensors")
    assert loaded.keys() == tensors.keys() and all(
        torch.equal(loaded[n], t) and loaded[n].dtype == t.dtype for n, t in tensors.items()
    )
    first = min(t.data_ptr() for n, t in loaded.items() if t.numel())
    assert max(t.data_ptr() for t in loaded.values()) - first < 4096  # all in the one buffer


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch(recipe, tmp_path):
    torch = wanted("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    loaded, given = recipe("torch_state", tmp_path / "net.pt"), torch.rand(3, 4)
    with torch.no_grad():
        assert torch.equal(loaded(given), net(given))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("external", [False, True])
def test_onnxruntime(recipe, tmp_path, external):
    """Also a model whose weights are in a file beside it.

    Published as a folder, which has a path.
    """
    onnx, np = wanted("onnx"), wanted("numpy")
    wanted("onnxruntime")
    weights = np.random.rand(300, 20).astype("f4")
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 300])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 20])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [x],
        [y],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    given = np.random.rand(2, 300).astype("f4")
    if external:
        (tmp_path / "net").mkdir()
        onnx.save(
            proto,
            tmp_path / "net" / "net.onnx",
            save_as_external_data=True,
            location="weights.bin",
            size_threshold=0,
        )
        import onnxruntime

        import efsstate

        publish("folder", tmp_path / "net", root=os.environ["EFSSTATE_ROOT"])
        get = efsstate.model(
            "folder", lambda files: onnxruntime.InferenceSession(files.stage() + "/net.onnx")
        )
        session = get()
    else:
        onnx.save(proto, tmp_path / "net.onnx")
        session = recipe("onnx_session", tmp_path / "net.onnx")
    assert np.allclose(session.run(None, {"x": given})[0], given @ weights, atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_joblib_and_scikit_learn(recipe, tmp_path):
    np, joblib = wanted("numpy"), wanted("joblib")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.random.rand(80, 5)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, x[:, 0] > 0.5)
    joblib.dump(fitted, tmp_path / "p.joblib")
    loaded = recipe("joblib_pipeline", tmp_path / "p.joblib")
    assert np.array_equal(loaded.predict_proba(x), fitted.predict_proba(x))
    assert isinstance(loaded[-1].coef_, np.memmap)


def test_tokenizers(recipe, tmp_path):
    tokenizers = wanted("tokenizers")
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"hello": 0, "world": 1, "?": 2}, unk_token="?")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    (tmp_path / "tok").mkdir()
    made.save(str(tmp_path / "tok" / "tokenizer.json"))
    assert recipe("tokenizer", tmp_path / "tok").encode("hello there world").ids == [0, 2, 1]


def test_sqlite_lookup(recipe, tmp_path, monkeypatch):
    """A look-up touches the copy only, and takes no lock."""
    import sqlite3

    table = sqlite3.connect(tmp_path / "words.sqlite")
    table.execute("CREATE TABLE words (word TEXT PRIMARY KEY, meaning TEXT)")
    table.executemany("INSERT INTO words VALUES (?, ?)", [(f"w{i}", f"m{i}") for i in range(5000)])
    table.commit()
    table.close()
    connection, files = recipe("sqlite_lookup", tmp_path / "words.sqlite")
    look_up = sys.modules["examples.models.sqlite_lookup"].look_up
    assert look_up("w4711") == "m4711" and look_up("nope") is None
    assert files.path.startswith(str(tmp_path)) and not os.path.exists(f"{files.path}-journal")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM words")
    connection.close()


def test_lmdb_lookup(recipe, tmp_path):
    """A look-up touches the copy only, and leaves no lock file."""
    lmdb = wanted("lmdb")
    path = str(tmp_path / "index.mdb")
    with (
        lmdb.open(path, subdir=False, map_size=8 << 20) as table,
        table.begin(write=True) as transaction,
    ):
        for i in range(5000):
            transaction.put(b"w%d" % i, b"m%d" % i)
    (tmp_path / "index.mdb-lock").unlink()
    table, files = recipe("lmdb_lookup", tmp_path / "index.mdb")
    look_up = sys.modules["examples.models.lmdb_lookup"].look_up
    assert look_up("w4711") == b"m4711" and look_up("nope") is None
    assert files.path.startswith(str(tmp_path)) and not os.path.exists(f"{files.path}-lock")
    with pytest.raises(lmdb.ReadonlyError):
        table.begin(write=True)
    table.close()


def test_parquet_by_column(recipe, tmp_path):
    """One column of sixteen is read, and the footer, of a file on the mount."""
    pyarrow = wanted("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    columns = {f"c{i}": os.urandom(8 * 20_000) for i in range(16)}
    arrays = [
        pyarrow.Array.from_buffers(pyarrow.int64(), 20_000, [None, pyarrow.py_buffer(data)])
        for data in columns.values()
    ]
    table = pyarrow.table(arrays, names=list(columns))
    path = tmp_path / "features.parquet"
    parquet.write_table(table, path, compression=None, use_dictionary=False)
    recipe("parquet_columns", path)
    column = sys.modules["examples.models.parquet_columns"].column
    before = _bytes_read()
    assert column("c7").to_pylist() == table["c7"].to_pylist()
    assert _bytes_read() - before < path.stat().st_size / 8
    assert not (tmp_path / f"efsstate-models-{os.geteuid()}").exists()


def _bytes_read():
    """What this process has read so far, from the page cache too."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])
