"""A cold start loads exactly the modules listed here; all others wait for their first use."""

import json
import subprocess
import sys

# What every interpreter has loaded before a handler is imported: -S leaves it out.
ALWAYS = {
    "os",
    "os.path",
    "io",
    "abc",
    "_abc",
    "stat",
    "_stat",
    "posixpath",
    "genericpath",
    "_collections_abc",
    "site",
    "codecs",
    "posix",
}
HEAVY = [
    "filelock",
    "cachetools",
    "msgpack",
    "asyncio",
    "numpy",
    "boto3",
    "inspect",
    "typing",
    "pathlib",
    "dataclasses",
    "logging",
    "json",
    "tempfile",
    "hashlib",
    "concurrent",
    "multiprocessing",
    "enum",
    "re",
    "socket",
    "subprocess",
    "shutil",
    "pickle",
    "datetime",
    "decimal",
    "uuid",
    "random",
]
SMALL = {
    "threading",
    "contextvars",
    "_contextvars",
    "struct",
    "_struct",
    "time",
    "errno",
    "functools",
    "collections",
    "_collections",
    "_functools",
    "types",
    "operator",
    "_operator",
    "keyword",
    "itertools",
    "reprlib",
    "_weakrefset",
    "weakref",
    "_thread",
    "collections.abc",
    "__future__",
}
OURS = {  # written out, so that a new one is a decision
    "efsstate",
    "efsstate.callables",
    "efsstate.cache",
    "efsstate.cache.decorator",
    "efsstate.cache.attributes",
    "efsstate.cache.captured",
    "efsstate.cache.function_cache",
    "efsstate.cache.key_encoding",
    "efsstate.cache.naming",
    "efsstate.cache.namespace",
    "efsstate.cache.options",
    "efsstate.cache.puts",
    "efsstate.generic",
    "efsstate.cache.flight",
    "efsstate.cache.keys",
    "efsstate.cache.cache",
    "efsstate.cache.memory",
    "efsstate.cache.tiers",
    "efsstate.cache.clearing",
    "efsstate.cache.disk",
    "efsstate.cache.signature",
    "efsstate.cache.io_threads",
    "efsstate.checkpoints",
    "efsstate.checkpoints.checkpoint",
    "efsstate.checkpoints.saves",
    "efsstate.checkpoints.claiming",
    "efsstate.checkpoints.protocol",
    "efsstate.checkpoints.newest",
    "efsstate.checkpoints.saving",
    "efsstate.checkpoints.looping",
    "efsstate.deadline",
    "efsstate.errors",
    "efsstate.format",
    "efsstate.events",
    "efsstate.modelstore",
    "efsstate.modelstore.resolve",
    "efsstate.modelstore.loader",
    "efsstate.modelstore.manifest",
    "efsstate.modelstore.state",
    "efsstate.modelstore.pointer",
    "efsstate.mount",
    "efsstate.mount.clock",
    "efsstate.mount.environment",
    "efsstate.mount.folders",
    "efsstate.format.codec",
    "efsstate.format.entry",
    "efsstate.mount.files",
    "efsstate.mount.reading",
    "efsstate.format.layout",
    "efsstate.mount.listing",
    "efsstate.mount.root",
    "efsstate.mount.links",
    "efsstate.process",
    "efsstate.units",
}


def loaded(statement):
    script = f"import sys; before = set(sys.modules); {statement}\n"
    script += "print(*sorted(set(sys.modules) - before))"
    # -S: the .pth files of a site directory may load anything, and a function's process has none.
    path = json.dumps([p for p in sys.path if p])
    script = f"import sys; sys.path[:] = {path}; " + script
    out = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True
    ).stdout
    return set(out.split())


def test_importing_the_public_names_loads_nothing_but_ours_and_small_ones():
    new = loaded("from efsstate import cached, checkpoint, model")
    foreign = {m for m in new if not m.startswith("efsstate")} - ALWAYS
    assert foreign <= SMALL, sorted(foreign - SMALL)
    assert {m for m in new if m.startswith("efsstate")} == OURS
    assert not [m for m in new if m.split(".")[0] in HEAVY]


def test_every_public_name_is_there():
    import efsstate

    for name in efsstate.__all__:
        assert getattr(efsstate, name) is not None
    assert set(efsstate.__all__) <= set(dir(efsstate))


def test_names_survive_any_order_of_imports():
    """Importing a module must not replace a public function: no module has such a name."""
    import efsstate

    for name in efsstate.__all__:
        if name.startswith("_"):
            continue
        code = "import importlib.util, sys\n"
        code += f"sys.exit(importlib.util.find_spec('efsstate.{name}') is not None)"
        assert (
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode
            == 0
        ), name


# What a first claim and its save load. The runtime client has loaded json before the handler runs;
# what ctypes and datetime load differs between versions of Python.
CLAIMS = {
    "_blake2",
    "efsstate.checkpoints.claim",
    "efsstate.checkpoints.claimant",
    "efsstate.format.codec.msgpack",
    "efsstate.format.codec.wire",
    "efsstate.mount.lock",
    "efsstate.mount.readdir",
    "fcntl",
    "msgpack",
    "msgpack._cmsgpack",
    "msgpack.exceptions",
    "msgpack.ext",
}


def test_a_first_claim_loads_only_the_modules_listed(tmp_path):
    """Of filelock it needs one system call, and of socket the name of the host."""
    statement = f"""
import json
from efsstate import checkpoint
import ctypes, datetime
assert "socket" not in sys.modules
before.update(sys.modules)
with checkpoint("job", root={str(tmp_path)!r}) as job:
    job.save(1)
"""
    new = {name for name in loaded(statement) if "cython" not in name}  # of msgpack, by its version
    assert new <= CLAIMS, sorted(new - CLAIMS)
    assert {name for name in CLAIMS if name.startswith("efsstate")} <= new
