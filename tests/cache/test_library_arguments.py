"""Frames, images and tensors as arguments: one content is one key, in another process too."""

import itertools
import subprocess
import sys

import pytest

from efsstate import EncodeError, cached
from efsstate.cache.keys import KeyBuilder
from efsstate.format import codec

PANDAS = """
pd.DataFrame()
pd.DataFrame({'a': [1, 2]})
pd.DataFrame({'a': [1, 3]})
pd.DataFrame({'b': [1, 2]})
pd.DataFrame({'a': [1, 2], 'b': [3, 4]})
pd.DataFrame({'b': [3, 4], 'a': [1, 2]})
pd.DataFrame({'a': [1.0, 2.0]})
pd.DataFrame({'a': [1, 2]}, dtype='int32')
pd.DataFrame({'a': [1, 2]}, dtype='Int64')
pd.DataFrame({'a': [1, None]}, dtype='Int64')
pd.DataFrame({'a': [None, 1]}, dtype='Int64')
pd.DataFrame({'a': [1, 2]}, index=[0, 1])
pd.DataFrame({'a': [1, 2]}, index=[1, 0])
pd.DataFrame({'a': [1, 2]}, index=['x', 'y'])
pd.DataFrame({'a': [1, 2]}, index=pd.Index([0, 1], name='n'))
pd.DataFrame({'a': [1, 2]}, index=pd.RangeIndex(1, 3))
pd.DataFrame({'a': [1, 2]}, index=pd.MultiIndex.from_tuples([(1, 'x'), (1, 'y')]))
pd.DataFrame({'a': [1, 2]}, index=pd.MultiIndex.from_tuples([(1, 'x'), (2, 'y')]))
pd.DataFrame({'a': [1, 2]}, index=pd.date_range('2026-01-01', periods=2))
pd.DataFrame({'a': [1, 2]}, index=pd.DatetimeIndex(['2026-01-01', '2026-01-02']))
pd.DataFrame([[1, 2], [3, 4]], columns=['a', 'a'])
pd.DataFrame([[1, 2], [4, 3]], columns=['a', 'a'])
pd.DataFrame({'a': [1, 2]}).set_flags(allows_duplicate_labels=False)
pd.DataFrame({'a': ['x', None]})
pd.DataFrame({'a': ['x', 'None']})
pd.DataFrame({'a': ['x', None]}, dtype='object')
pd.DataFrame({'a': ['x', 1]}, dtype='object')
pd.DataFrame({'a': ['x', '1']}, dtype='object')
pd.DataFrame({'a': pd.Categorical(['x', 'y', 'x'])})
pd.DataFrame({'a': pd.Categorical(['x', 'y', 'x'], ['y', 'x'])})
pd.DataFrame({'a': pd.Categorical(['x', 'y', 'x'], ordered=True)})
pd.DataFrame({'a': pd.to_datetime(['2026-01-01', None])})
pd.DataFrame({'a': pd.to_datetime(['2026-01-01', None], utc=True)})
pd.DataFrame({'a': pd.to_datetime(['2026-01-01']).tz_localize('Europe/Berlin')})
pd.DataFrame({'a': pd.to_datetime(['2026-01-01']).tz_localize('Europe/Rome')})
pd.Series([1, 2])
pd.Series([1, 2], name='a')
pd.Series([1, 2], index=[5, 6])
pd.Series([True, False])
pd.Series([True, None], dtype='boolean')
"""
POLARS = """
pl.DataFrame()
pl.DataFrame({'a': [1, 2]})
pl.DataFrame({'a': [1, 3]})
pl.DataFrame({'a': [1, None]})
pl.DataFrame({'a': [1, 0]})
pl.DataFrame({'b': [1, 2]})
pl.DataFrame({'a': [1, 2], 'b': [3, 4]})
pl.DataFrame({'b': [3, 4], 'a': [1, 2]})
pl.DataFrame({'a': [1, 2]}, schema={'a': pl.Int32})
pl.DataFrame({'a': [1, 2]}, schema={'a': pl.Int128})
pl.DataFrame({'a': [1.0, -0.0]})
pl.DataFrame({'a': [1.0, 0.0]})
pl.DataFrame({'a': [1.0, None]})
pl.DataFrame({'a': [1.0, float('nan')]})
pl.DataFrame({'a': [True, None]})
pl.DataFrame({'a': [True, False]})
pl.DataFrame({'a': ['x', None]})
pl.DataFrame({'a': [b'x', None]})
pl.DataFrame({'a': ['x', 'y']}, schema={'a': pl.Categorical})
pl.DataFrame({'a': ['x', 'y']}, schema={'a': pl.Enum(['x', 'y'])})
pl.DataFrame({'a': ['x', 'y']}, schema={'a': pl.Enum(['x', 'y', 'z'])})
pl.DataFrame({'a': [[1], None]})
pl.DataFrame({'a': [[1], []]})
pl.DataFrame({'a': [{'x': 1, 'y': 2}]})
pl.DataFrame({'a': [{'x': 1, 'z': 2}]})
pl.DataFrame({'a': [[1, 2]]}, schema={'a': pl.Array(pl.Int64, 2)})
pl.Series('a', [1, 2])
pl.Series('b', [1, 2])
pl.Series('a', [None, None])
pl.Series('a', [1, 2], dtype=pl.Date)
pl.Series('a', [1, 2]).cast(pl.Datetime('us'))
pl.Series('a', [1, 2]).cast(pl.Datetime('ns'))
pl.Series('a', [1, 3]).cast(pl.Datetime('ns'))
pl.Series('a', [1, 2]).cast(pl.Datetime('ns', 'UTC'))
pl.Series('a', [[1, 2]]).cast(pl.List(pl.Datetime('ns')))
pl.Series('a', [[1, 3]]).cast(pl.List(pl.Datetime('ns')))
pl.Series('a', ['1.50']).cast(pl.Decimal(10, 2))
pl.Series('a', ['1.5']).cast(pl.Decimal(10, 1))
"""
IMAGES = """
Image.new('RGB', (3, 2))
Image.new('RGB', (2, 3))
Image.new('RGB', (3, 2), (0, 0, 1))
Image.new('RGBX', (3, 2))
Image.new('HSV', (3, 2))
Image.new('L', (6, 3))
Image.new('P', (6, 3))
Image.new('L', (3, 2))
Image.new('1', (8, 2))
Image.new('1', (8, 2), 1)
Image.new('I;16', (3, 2), 700)
Image.new('RGB', (3, 2), (1, 2, 3)).convert('P')
Image.new('RGB', (3, 2), (1, 2, 4)).convert('P', palette=Image.Palette.ADAPTIVE)
"""
TENSORS = """
torch.zeros(3)
torch.ones(3)
torch.zeros(3, dtype=torch.float64)
torch.zeros(3, dtype=torch.int32)
torch.zeros(3, dtype=torch.bfloat16)
torch.zeros(3, dtype=torch.float16)
torch.zeros(3, dtype=torch.complex64)
torch.zeros(3, dtype=torch.float8_e5m2)
torch.tensor([True, False])
torch.zeros(3, 1)
torch.zeros(())
torch.zeros(0)
torch.zeros(0, 3)
torch.zeros(3, requires_grad=True)
torch.arange(6.0).reshape(2, 3).T
torch.arange(6.0).reshape(3, 2)
torch.tensor([1 + 2j]).conj()
torch.tensor([1 + 2j])
"""
IMPORTS = {
    "pandas": (PANDAS, "import pandas as pd"),
    "polars": (POLARS, "import polars as pl"),
    "PIL": (IMAGES, "from PIL import Image"),
    "torch": (TENSORS, "import torch"),
}
LIBRARIES = [*list(IMPORTS)[:3], pytest.param("torch", marks=pytest.mark.heavy)]
PROGRAM = """
from efsstate.cache.keys import KeyBuilder
print(*[KeyBuilder("k", None).digest(eval(line)) for line in {lines!r}])
"""


def digest(value):
    return KeyBuilder("k", None).digest(value)


def namespace(library):
    """Return the names that the expressions use."""
    pytest.importorskip(library)
    names = {}
    exec(IMPORTS[library][1], names)
    return names


@pytest.mark.parametrize("library", LIBRARIES)
def test_content_is_the_key_in_every_process(library):
    lines = IMPORTS[library][0].strip().splitlines()
    names = namespace(library)
    keys = [digest(eval(line, names)) for line in lines]
    assert keys == [digest(eval(line, names)) for line in lines]
    same = [pair for pair in itertools.combinations(zip(keys, lines, strict=True), 2)
            if pair[0][0] == pair[1][0]]  # fmt: skip
    assert same == []
    program = IMPORTS[library][1] + PROGRAM.format(lines=lines)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == keys, done.stderr


@pytest.mark.parametrize(
    ("library", "left", "right"),
    [
        ("pandas", "pd.DataFrame({'a': [1, 2], 'b': [3, 4]})",
         "pd.concat([pd.Series([1, 2], name='a'), pd.Series([3, 4], name='b')], axis=1)"),
        ("pandas", "pd.Series([1, None], dtype='Int64')",
         "pd.Series([1, 7], dtype='Int64').where(pd.Series([True, False]))"),
        ("pandas", "pd.Series([2, 4])", "pd.Series([2, 3, 4])[::2].reset_index(drop=True)"),
        ("polars", "pl.Series('a', [1, None])",
         "pl.select(pl.when(pl.Series([True, False])).then(pl.Series([1, 7])).alias('a'))['a']"),
        ("polars", "pl.Series('a', [2, 4])", "pl.Series('a', [1, 2, 3, 4]).gather_every(2, 1)"),
        ("polars", "pl.DataFrame({'a': ['x', 'y']})",
         "pl.concat([pl.DataFrame({'a': ['x']}), pl.DataFrame({'a': ['y']})], rechunk=False)"),
        ("polars", "pl.Series('a', ['x', 'y'], dtype=pl.Categorical)",
         "pl.Series('a', ['q', 'x', 'y'], dtype=pl.Categorical)[1:]"),
        ("polars", "pl.Series('a', range(200_000))",
         "pl.concat([pl.Series('a', range(9)), pl.Series('a', range(9, 200_000))])"),
        pytest.param("torch", "torch.arange(6).reshape(2, 3).T.contiguous()",
         "torch.arange(6).reshape(2, 3).T", marks=pytest.mark.heavy),
    ],
)  # fmt: skip
def test_the_layout_in_memory_does_not_show(library, left, right):
    names = namespace(library)
    assert digest(eval(left, names)) == digest(eval(right, names))


@pytest.mark.parametrize(
    ("library", "expression", "reason"),
    [
        ("pandas", "pd.Series(pd.period_range('2026-01', periods=2, freq='M'))", "dtype period"),
        ("pandas", "pd.Series([object()])", "builtins.object"),
        ("pandas", "type('A', (pd.DataFrame,), {'__module__': 'm'})({'a': [1]})", "no stable form"),
        ("polars", "pl.Series('o', [object()], dtype=pl.Object)", "a column of dtype Object"),
        ("polars", "pl.Series('c', [['x']], dtype=pl.List(pl.Categorical))", "dtype Categorical"),
        ("polars", "pl.LazyFrame({'a': [1]})", "no stable form"),
        pytest.param("torch", "torch.zeros(3, requires_grad=True) * 2", "detach",
                     marks=pytest.mark.heavy),
        pytest.param("torch", "torch.zeros(3, 3).to_sparse()", "to_dense", marks=pytest.mark.heavy),
        pytest.param("torch", "torch.zeros(3, device='meta')", "memory of meta",
                     marks=pytest.mark.heavy),
        pytest.param("torch", "torch.nn.Parameter(torch.zeros(3))", "no stable form",
                     marks=pytest.mark.heavy),
    ],
)  # fmt: skip
def test_what_has_no_stable_form_is_refused(library, expression, reason):
    value = eval(expression, namespace(library))
    with pytest.raises(TypeError, match=reason):
        digest(value)


def test_the_image_of_a_file_is_refused_and_its_copy_is_a_key(tmp_path):
    image = namespace("PIL")["Image"]
    image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "image.png")
    with image.open(tmp_path / "image.png") as opened:
        with pytest.raises(TypeError, match=r"pass its copy\(\)"):
            digest(opened)
        assert digest(opened.copy()) == digest(image.new("RGB", (3, 2), (1, 2, 3)))


def test_an_image_that_is_more_than_its_pixels_is_refused():
    """Its Exif data may have been changed in memory; its copy() is a key."""
    new = namespace("PIL")["Image"].new
    plain, tagged, named, nested = [new("RGB", (3, 2)) for _ in range(4)]
    assert not plain.getexif()
    tagged.getexif()[274], named.format = 6, "PNG"
    nested.getexif().get_ifd(0x8769)[36867] = "2026:01:01 00:00:00"
    for value in (tagged, named, nested):
        with pytest.raises(TypeError, match="its copy"):
            digest(value)
        with pytest.raises(EncodeError, match="its copy"):
            codec.dumps(value)
        assert digest(value.copy()) == digest(plain) == digest(new("RGB", (3, 2)))
    kept = plain.copy()
    kept.info["exif"] = tagged.getexif().tobytes()
    before = digest(kept)
    assert kept.getexif()[274] == 6 and digest(kept) == before != digest(plain)
    assert codec.loads(packed(kept)).getexif()[274] == 6


def test_the_information_of_an_image_counts():
    image = namespace("PIL")["Image"].new("RGB", (3, 2))
    before = digest(image)
    image.info["dpi"] = (72, 72)
    assert digest(image) != before


def test_the_attributes_of_a_frame_count():
    frame = namespace("pandas")["pd"].DataFrame({"a": [1]})
    before = digest(frame)
    frame.attrs["unit"] = "m"
    assert digest(frame) != before
    frame.unit = "m"
    with pytest.raises(TypeError, match="'unit'"):
        digest(frame)
    other = namespace("polars")["pl"].DataFrame({"a": [1]})
    other.unit = "m"
    with pytest.raises(TypeError, match="'unit'"):
        digest(other)


def test_a_cached_function_takes_a_frame():
    pl = namespace("polars")["pl"]
    calls = []

    @cached(name="total")
    def total(frame):
        calls.append(1)
        return frame["a"].sum()

    assert total(pl.DataFrame({"a": [1, 2]})) == total(pl.DataFrame({"a": [1, 2]})) == 3
    assert total(pl.DataFrame({"a": [1, 3]})) == 4 and len(calls) == 2


# Tensors as results

HELD = """
import sys, torch
from efsstate.format import codec
data = sys.stdin.buffer.read()
"""


def packed(value):
    parts = codec.dumps(value)
    return b"".join(bytes(part) for part in parts) if isinstance(parts, list) else bytes(parts)


@pytest.mark.heavy
def test_tensors_come_back_as_they_are():
    names = namespace("torch")
    torch = names["torch"]
    for line in TENSORS.strip().splitlines():
        value = eval(line, names)
        for data in (packed(value), bytearray(packed(value))):
            back = codec.loads(data)
            assert type(back) is torch.Tensor and back.requires_grad == value.requires_grad
            assert back.dtype == value.dtype and torch.equal(back, value), line
            assert digest(back) == digest(value)
            with torch.no_grad():
                back.fill_(1)  # the caller's own
    at_odds = {"a": b"x", "t": [torch.arange(5), torch.tensor([True])]}
    back = codec.loads(memoryview(bytearray(b"-") + packed(at_odds))[1:])
    assert back["t"][0].tolist() == [0, 1, 2, 3, 4] and back["t"][1].tolist() == [True]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "expression",
    [
        "torch.zeros(3, requires_grad=True) * 2",
        "torch.zeros(3, 3).to_sparse()",
        "torch.zeros(3, device='meta')",
        "torch.nn.Parameter(torch.zeros(3))",
        "marked(torch.zeros(3))",
        "trained(torch.zeros(3, requires_grad=True))",
    ],
)
def test_a_tensor_that_is_more_than_its_items_is_not_kept(expression):
    from efsstate import EncodeError

    def marked(tensor):
        tensor.mark = 1
        return tensor

    def trained(tensor):
        tensor.sum().backward()
        return tensor

    names = {**namespace("torch"), "marked": marked, "trained": trained}
    with pytest.raises(EncodeError, match=r"use|would not come back|outside"):
        codec.dumps(eval(expression, names))


@pytest.mark.heavy
def test_hostile_tensors_are_value_errors():
    torch = namespace("torch")["torch"]
    data = packed(torch.tensor([True, False]))
    with pytest.raises(ValueError, match="a tensor's bools"):
        codec.loads(data[:64] + b"\x02" + data[65:])
    for at in range(len(data)):
        try:
            codec.loads(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        except ValueError:
            pass
    for cut in range(len(data)):
        with pytest.raises(ValueError, match="can't be read"):
            codec.loads(data[:cut])
    program = "import sys\nfrom efsstate.format import codec\ntry:\n"
    program += f"    codec.loads({data!r})\nexcept ValueError as error:\n"
    program += "    print(error, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "torch is not imported" in done.stdout and done.stdout.endswith("False\n"), done.stderr
