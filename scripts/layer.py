"""Build the Lambda layer: a zip for each architecture and Python version.

It has efsstate and what its core needs on Linux.

    python scripts/layer.py [--out dist] [--python 3.13 …] [--arch arm64 …]

It takes the wheel from dist/ (make it with `python -m build --wheel`) and the other packages'
wheels from PyPI, at the versions that pip resolves for that platform, or from --wheels. The same
wheels give the same bytes: sorted names, one date, one mode. Bytecode is in it where this machine
has the same Python (`python3.13` on the PATH, or this one), because Lambda cannot keep what it
compiles below /opt, and would compile every module again at each cold start.
"""

from __future__ import annotations

import argparse
import ast
import glob
import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import tokenize
import zipfile

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ARCHITECTURES = {"x86_64": "x86_64", "arm64": "aarch64"}
# Python 3.11 runs on Amazon Linux 2 (glibc 2.26), the later ones on Amazon Linux 2023 (2.34): 2.17
# suits both.
PLATFORMS = ("manylinux2014_{}", "manylinux_2_17_{}")
LIMIT = 1_000_000
MOMENT = (1980, 1, 1, 0, 0, 0)
# Not for the function's process: the command (it needs click and rich), the test harness, templates
# and the linter.
# filelock is for other systems: on Linux a lock is `flock` itself.
LEFT_OUT = (
    "filelock",
    "efsstate/cli/",
    "efsstate/deploy/templates/",
    "efsstate/planning/",
    "efsstate/reporting/",
    "efsstate/testing/",
)
# Modules that the function's process does not load need no bytecode: a publisher has time.
NOT_COMPILED = (
    r"/msgpack/fallback"
    r"|/efsstate/(publisher|ops|notebook|worker\.|adapters/|cleanup/|publishing/|deploy/"
    r"|datasets/(retention|catalog)|eviction/(incoming|removal)"
    r"|checkpoints/(catalog|fenced_removal|rebasing)"
    r"|modelstore/(publishing|checking|pruning|disposal|source|patterns|completeness|catalog"
    r"|hub|publication))"
)
KEPT_OF_DEPLOY = (
    "__init__.py",
    "aws_facts.py",
    "aws_facts.toml",
    "findings.py",
    "diagnosis/__init__.py",
    "diagnosis/doctor.py",
    "diagnosis/probe.py",
    "diagnosis/mount_checks.py",
    "diagnosis/mount_rules.py",
)


def main() -> int:
    """Build what is asked for; 1 if a zip is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="dist")
    parser.add_argument("--wheel", help="efsstate's wheel; else the one in --out")
    parser.add_argument("--wheels", help="a folder of wheels to take instead of PyPI's")
    parser.add_argument("--python", nargs="*", default=PYTHONS, choices=PYTHONS)
    parser.add_argument("--arch", nargs="*", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    asked = parser.parse_args()
    wheel = asked.wheel or next(
        iter(sorted(glob.glob(os.path.join(asked.out, "efsstate-*.whl")))), None
    )
    if wheel is None:
        print(
            f"{asked.out}: no wheel of efsstate in it: run `python -m build --wheel` first",
            file=sys.stderr,
        )
        return 2
    code = 0
    for architecture in asked.arch:
        for python in asked.python:
            path = os.path.join(asked.out, f"efsstate-layer-python{python}-{architecture}.zip")
            compiled = build(path, wheel, python, architecture, asked.wheels)
            size = os.path.getsize(path)
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            print(
                f"{path}: {size:,} bytes, {'with' if compiled else 'without'} bytecode, sha256 "
                f"{digest[:16]}"
            )
            if size >= LIMIT:
                print(f"{path}: over the limit of {LIMIT:,} bytes", file=sys.stderr)
                code = 1
    return code


def build(path: str, wheel: str, python: str, architecture: str, wheels: str | None = None) -> bool:
    """Write one zip; whether there is bytecode in it."""
    with tempfile.TemporaryDirectory() as folder:
        tree = os.path.join(folder, "tree", "python")
        for one in [
            wheel,
            *download(os.path.join(folder, "wheels"), wheel, python, architecture, wheels),
        ]:
            with zipfile.ZipFile(one) as packed:
                packed.extractall(tree, [name for name in packed.namelist() if wanted(name)])
        leave_out_texts(tree)
        compiled = compile_all(tree, python)
        pack(path, os.path.dirname(tree))
    return compiled


def wanted(name: str) -> bool:
    """Whether a file of a wheel goes into the layer."""
    if name.startswith("efsstate/deploy/"):
        return name.removeprefix("efsstate/deploy/") in KEPT_OF_DEPLOY
    return not name.startswith(LEFT_OUT) and not name.endswith(
        (".pyx", ".pyi", ".c", ".h", "/RECORD", "/WHEEL", ".cdx.json", "/echarts/LICENSE")
    )


def download(
    folder: str, wheel: str, python: str, architecture: str, wheels: str | None
) -> list[str]:
    """The wheels of what efsstate's core needs, for that platform."""
    machine = ARCHITECTURES[architecture]
    source = ["--no-index", "--find-links", wheels] if wheels else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]
    command += ["--python-version", python, "--implementation", "cp", "--dest", folder, *source]
    for platform in PLATFORMS:
        command += ["--platform", platform.format(machine)]
    subprocess.run([*command, wheel], check=True)
    return sorted(
        one
        for one in glob.glob(os.path.join(folder, "*.whl"))
        if os.path.basename(one) != os.path.basename(wheel)
    )


def leave_out_texts(tree: str) -> None:
    """Blank the docstrings and comments of all sources, and the READMEs in the metadata.

    The numbers of lines stay.
    """
    for above, _, files in os.walk(tree):
        for name in files:
            if name.endswith(".py") or name == "METADATA":
                path = os.path.join(above, name)
                with open(path, encoding="utf-8") as file:
                    source = file.read()
                is_code = name.endswith(".py")
                text = without_texts(source) if is_code else source.partition("\n\n")[0] + "\n"
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)


def without_texts(source: str) -> str:
    """Return a source without docstrings and comments; every statement stays on its line."""
    lines = [line.encode() for line in source.splitlines()]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            text = node.body[0]
            first, last = text.lineno - 1, text.end_lineno - 1
            rest = lines[last][text.end_col_offset :]
            for number in range(first + 1, last + 1):
                lines[number] = b""
            lines[first] = lines[first][: text.col_offset] + b'""' + rest
    comments = [
        token.start
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    for row, column in comments:
        line = lines[row - 1].decode()
        if line[column : column + 1] == "#":  # else the docstring before it has been blanked
            lines[row - 1] = line[:column].rstrip().encode()
    return "\n".join(line.decode() for line in lines) + "\n"


def compile_all(tree: str, python: str) -> bool:
    """Add bytecode that is never checked against its sources; return False without that Python."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    interpreter = sys.executable if python == here else shutil.which(f"python{python}")
    if interpreter is None:
        return False
    command = [
        interpreter,
        "-m",
        "compileall",
        "-q",
        "-x",
        NOT_COMPILED,
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        tree,
        "-p",
        "/opt/python",
        tree,
    ]
    done = subprocess.run(
        command,
        check=False,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    if done.returncode == 0:
        take_the_sources_place(tree)
    return done.returncode == 0


def take_the_sources_place(tree: str) -> None:
    """Put each module's bytecode in place of its source, which halves the layer.

    A traceback then names file, line and function; the repository has the line.
    """
    for above, _, files in os.walk(tree):
        if os.path.basename(above) != "__pycache__":
            continue
        for name in files:
            module = os.path.join(os.path.dirname(above), name.partition(".")[0])
            os.replace(os.path.join(above, name), f"{module}.pyc")
            os.unlink(f"{module}.py")
        os.rmdir(above)


def pack(path: str, folder: str) -> None:
    """All files of a folder, so that the same files give the same bytes."""
    names = []
    for above, _, files in os.walk(folder):
        names += [os.path.relpath(os.path.join(above, name), folder) for name in files]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name in sorted(names):
            entry = zipfile.ZipInfo(name.replace(os.sep, "/"), MOMENT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            entry.create_system = 3
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            packed.writestr(entry, loadable(data) if name.endswith(".so") else data)


def loadable(library: bytes) -> bytes:
    """Cut a shared library after the last segment that is loaded.

    What only a debugger reads goes (of msgpack's 1.8 MB, 1.6).

    Segments are all that the dynamic loader looks at; the table of sections, which stands after
    them, is taken out of the header.
    """
    if library[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian: x86-64 and arm64 are
        return library
    (table,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    segments = [
        struct.unpack_from("<8xQ16xQ", library, table + index * size) for index in range(count)
    ]
    kept = bytearray(library[: max(offset + length for offset, length in segments)])
    struct.pack_into("<Q", kept, 40, 0)
    struct.pack_into("<HHH", kept, 58, 0, 0, 0)
    return bytes(kept)


if __name__ == "__main__":
    sys.exit(main())
