"""Scalars of libraries as arguments: two that a function can tell apart are two keys, or refused.

A row's values are all different for a function that gets them; a value without a stable form is
refused, and names its type. As results they come back exactly, or are not kept.
"""

import itertools
import pathlib
import subprocess
import sys
import zoneinfo
from datetime import datetime

import pytest

from efsstate import EncodeError
from efsstate.cache.keys import KeyBuilder
from efsstate.format import codec

IMPORTS = """
import datetime as dt, decimal, enum, http, ipaddress, pathlib, re, uuid, zoneinfo
import dateutil.tz, numpy as np
"""
STANDARD = """
decimal.Decimal('1.0')
decimal.Decimal('1.00')
decimal.Decimal('-0')
decimal.Decimal('0')
decimal.Decimal('NaN')
decimal.Decimal('sNaN')
decimal.Decimal('Infinity')
uuid.UUID(int=1)
uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe)
uuid.UUID(int=1, is_safe=uuid.SafeUUID.unsafe)
http.HTTPStatus.OK
200
http.HTTPMethod.GET
'GET'
re.RegexFlag.I
re.RegexFlag.I | re.RegexFlag.M
pathlib.PurePosixPath('/a/b')
pathlib.PosixPath('/a/b')
pathlib.PureWindowsPath('/a/b')
ipaddress.ip_address('127.0.0.1')
ipaddress.ip_address('::1')
ipaddress.ip_address('::ffff:127.0.0.1')
ipaddress.ip_address('fe80::1')
ipaddress.ip_address('fe80::1%eth0')
ipaddress.ip_network('10.0.0.0/8')
ipaddress.ip_network('10.0.0.0/9')
ipaddress.ip_interface('10.0.0.0/8')
ipaddress.ip_network('2001:db8::/32')
ipaddress.ip_interface('2001:db8::/32')
zoneinfo.ZoneInfo('UTC')
zoneinfo.ZoneInfo('Europe/Berlin')
dateutil.tz.gettz('Europe/Berlin')
dt.timezone.utc
dt.timezone(dt.timedelta(0), 'UTC')
dt.timezone(dt.timedelta(hours=1))
dt.date(2026, 1, 1)
dt.datetime(2026, 1, 1)
dt.datetime(2026, 1, 1, fold=1)
dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo('UTC'))
dt.datetime(2026, 1, 1, tzinfo=dateutil.tz.tzutc())
dt.time(0)
dt.time(0, fold=1)
dt.time(0, tzinfo=dt.timezone.utc)
dt.timedelta(1)
np.int64(1)
np.int32(1)
np.uint8(1)
np.float64(1)
np.float32(1)
np.float64(-0.0)
np.float64(0.0)
np.longdouble(1)
np.bool_(True)
np.str_('a')
np.bytes_(b'a')
np.void(b'a')
np.complex128(1)
np.datetime64('2026-01-01')
np.datetime64('2026-01-01', 's')
np.datetime64('NaT')
np.timedelta64(1, 'D')
np.timedelta64(1, 's')
np.timedelta64('NaT')
"""
PANDAS = """
pd.Timestamp('2026-01-01')
pd.Timestamp('2026-01-01').as_unit('s')
pd.Timestamp('2026-01-01 00:00:00.000000001')
pd.Timestamp('2026-01-01', tz=dt.timezone.utc)
pd.Timestamp('2026-01-01', tz=zoneinfo.ZoneInfo('UTC'))
pd.Timestamp('2026-01-01 01:00', tz=zoneinfo.ZoneInfo('Europe/Berlin'))
pd.Timestamp('2026-01-01').to_pydatetime()
pd.Timestamp('2026-01-01').asm8
pd.Timedelta('1D')
pd.Timedelta('1D').as_unit('s')
pd.Timedelta('1D').to_pytimedelta()
pd.Timedelta('1D').asm8
pd.NaT
pd.NA
None
float('nan')
pd.Period('2026-01', 'M')
pd.Period('2026-01', 'D')
pd.Period('2026-02', 'M')
pd.Interval(0, 1)
pd.Interval(0, 1, closed='left')
pd.Interval(0, 1.0)
pd.Interval(pd.Timestamp('2026-01-01'), pd.Timestamp('2026-01-02'))
pd.CategoricalDtype()
pd.CategoricalDtype([])
pd.CategoricalDtype(['a', 'b'])
pd.CategoricalDtype(['b', 'a'])
pd.CategoricalDtype(['a', 'b'], ordered=True)
pd.CategoricalDtype([1, 2])
"""
REFUSED = {
    "pandas": [
        "pd.Int64Dtype()", "pd.StringDtype()", "pd.offsets.MonthEnd()", "pd.Index([1])",
        "pd.RangeIndex(3)", "pd.Categorical(['a'])", "pd.array([1, None])", "pd.Grouper('a')",
    ],
    "numpy": ["np.dtype('i8')", "np.ma.masked_array([1], [True])", "np.random.default_rng(1)"],
    "pyarrow": [
        "pa.scalar(1)", "pa.scalar(None, pa.int8())", "pa.array([1])", "pa.table({'a': [1]})",
        "pa.int64()", "pa.schema([('a', pa.int64())])", "pa.py_buffer(b'a')",
    ],
    "collections": ["collections.Counter('a')", "collections.deque([1])", "re.compile('a')"],
}  # fmt: skip
ALIASES = {"pandas": "pd", "numpy": "np", "pyarrow": "pa", "collections": "collections"}
PROGRAM = """
from efsstate.cache.keys import KeyBuilder
print(*[KeyBuilder("k", None).digest(eval(line)) for line in {lines!r}])
"""


def digest(value):
    return KeyBuilder("k", None).digest(value)


def namespace(library=None):
    """Return the names that the expressions use, and the statement that makes them."""
    names, imports = {}, IMPORTS
    if library is not None:
        pytest.importorskip(library)
        imports += f"import {library} as {ALIASES[library]}\n"
    exec(imports, names)
    return names, imports


@pytest.mark.parametrize("library", [None, "pandas"])
def test_values_that_differ_are_two_keys_in_every_process(library):
    names, imports = namespace(library)
    lines = (PANDAS if library else STANDARD).strip().splitlines()
    keys = [digest(eval(line, names)) for line in lines]
    assert keys == [digest(eval(line, names)) for line in lines]
    pairs = itertools.combinations(zip(keys, lines, strict=True), 2)
    assert [(left, right) for left, right in pairs if left[0] == right[0]] == []
    program = imports + PROGRAM.format(lines=lines)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == keys, done.stderr


@pytest.mark.parametrize("library", [None, "pandas"])
def test_a_scalar_comes_back_exactly_or_is_not_kept(library):
    names, _ = namespace(library)
    kept = 0
    for line in (PANDAS if library else STANDARD).strip().splitlines():
        value = eval(line, names)
        try:
            parts = codec.dumps(value)
        except EncodeError:
            continue
        back = codec.loads(b"".join(map(bytes, parts)) if isinstance(parts, list) else parts)
        assert type(back) is type(value), line
        assert digest(back) == digest(value), line
        kept += 1
    assert kept >= (4 if library else 40)


@pytest.mark.parametrize("library", REFUSED)
def test_what_has_no_stable_form_is_refused(library):
    names, _ = namespace(library)
    for line in REFUSED[library]:
        with pytest.raises(TypeError, match="no stable form"):
            digest(eval(line, names))


def test_a_zone_of_a_file_is_not_the_zone_of_its_name():
    """`from_file` takes any name beside the file's content."""
    folders = [pathlib.Path(folder, "Asia/Tokyo") for folder in zoneinfo.TZPATH]
    path = next((path for path in folders if path.exists()), None)
    if path is None:
        pytest.skip("no zone files on this machine")
    with path.open("rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(file, key="Europe/Berlin")
    for value in (zone, datetime(2026, 1, 1, tzinfo=zone)):
        with pytest.raises(TypeError, match="read from a file"):
            digest(value)
    with pytest.raises(EncodeError, match="read from a file"):
        codec.dumps(datetime(2026, 1, 1, tzinfo=zone))
