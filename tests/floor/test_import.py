"""What a cold start pays: the exact modules that importing the public names loads, and what stays out until its first use."""

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
    "efsstate.cache",
    "efsstate.cache.decorator",
    "efsstate.cache.attributes",
    "efsstate.cache.captured",
    "efsstate.cache.function_cache",
    "efsstate.cache.key_encoding",
    "efsstate.cache.naming",
    "efsstate.cache.options",
    "efsstate.generic",
    "efsstate.cache.flight",
    "efsstate.cache.keys",
    "efsstate.cache.cache",
    "efsstate.cache.memory",
    "efsstate.cache.tiers",
    "efsstate.cache.disk",
    "efsstate.cache.signature",
    "efsstate.cache.io_threads",
    "efsstate.checkpoints",
    "efsstate.checkpoints.checkpoint",
    "efsstate.checkpoints.saves",
    "efsstate.checkpoints.claimant",
    "efsstate.checkpoints.protocol",
    "efsstate.checkpoints.claim",
    "efsstate.deadline",
    "efsstate.errors",
    "efsstate.format",
    "efsstate.events",
    "efsstate.modelstore",
    "efsstate.modelstore.resolve",
    "efsstate.modelstore.loader",
    "efsstate.modelstore.manifest",
    "efsstate.modelstore.gate",
    "efsstate.modelstore.pointer",
    "efsstate.mount",
    "efsstate.mount.clock",
    "efsstate.mount.environment",
    "efsstate.mount.folders",
    "efsstate.format.codec",
    "efsstate.format.entry",
    "efsstate.mount.files",
    "efsstate.format.layout",
    "efsstate.mount.descriptor",
    "efsstate.mount.lock",
    "efsstate.mount.root",
    "efsstate.mount.links",
    "efsstate.mount.store",
    "efsstate.process",
    "efsstate.units",
}


def loaded(statement):
    script = f"import sys; before = set(sys.modules); {statement}; new = set(sys.modules) - before; print(*sorted(new))"
    # -S: a site directory's .pth files may load anything; -I with the path given is what a function's process sees.
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
    """No module has the name of a public function: importing one must not put it in the function's place."""
    import efsstate

    for name in efsstate.__all__:
        if name.startswith("_"):
            continue
        code = f"import importlib\ntry: importlib.import_module('efsstate.{name}')\nexcept ImportError: pass\nelse: raise SystemExit('efsstate.{name} is a module')"
        assert (
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode
            == 0
        ), name
