"""Print the house's figures: circles, long lines, empty names, private access, private words.

`tests/floor/test_house.py` holds each of them at its goal. Run `python scripts/house.py` to see
where they stand.
"""

from __future__ import annotations

import ast
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent.parent
COLUMNS = 100
CODE = ("src", "tests", "benchmarks", "examples", "scripts")
# A name that says what was done to a thing, and not what the thing is.
EMPTY_NAMES = {"one", "found", "made", "held", "told", "left", "given"}
# Words that begin a sentence without its noun.
PRIVATE_WORDS = re.compile(
    r"\b(what|whoever|whose|anew|nobody|somebody|thereby|told)\b", re.IGNORECASE
)


def modules(source: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return each module's dotted name with its file."""
    known = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        known[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return known


def imported(name: str, path: pathlib.Path, known: dict[str, pathlib.Path]) -> Iterator[str]:
    """Yield the modules that `name` imports.

    At the top, in functions and for type checkers alike.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [full if full in known else node.module for full in within]
        yield from (target for target in targets if target in known and target != name)


def circles(source: pathlib.Path) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or not (Tarjan's algorithm)."""
    known = modules(source)
    # A package's own file counts only if there is code in it: else every child would import its
    # parent.
    real = {
        name
        for name, path in known.items()
        if path.name != "__init__.py" or re.search(r"^(def|class) ", path.read_text(), re.MULTILINE)
    }
    graph = {name: {t for t in imported(name, known[name], known) if t in real} for name in real}
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for target in graph[name]:
            if target not in order:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in stack:
                lowest[name] = min(lowest[name], order[target])
        if lowest[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return groups


def long_lines(root: pathlib.Path) -> Iterator[str]:
    """Yield each line of code, or of the pages' prose, over 100 columns; tables are not counted."""
    for folder in CODE:
        for path in sorted((root / folder).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if len(line) > COLUMNS:
                    yield f"{path.relative_to(root)}:{number}: {len(line)} columns"
    pages = [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]
    pages += sorted((root / "examples").rglob("*.md")) + sorted((root / "tests").rglob("*.md"))
    for path in pages:
        fenced = False
        for number, line in enumerate(path.read_text().splitlines(), 1):
            fenced ^= line.lstrip().startswith("```")
            table = line.lstrip().startswith("|")
            link = re.fullmatch(r"\s*\[[^\]]+\]: \S+|\S+", line) is not None
            if len(line) > COLUMNS and not fenced and not table and not link:
                yield f"{path.relative_to(root)}:{number}: {len(line)} columns"


def empty_names(source: pathlib.Path) -> Iterator[str]:
    """Yield each local variable with a name that says nothing."""
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Name)
                and isinstance(node.ctx, ast.Store)
                and node.id in EMPTY_NAMES
            ):
                yield f"{path.relative_to(source)}:{node.lineno}: {node.id}"


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every docstring and comment."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and (docstring := ast.get_docstring(node, clean=False)):
            for offset, line in enumerate(docstring.splitlines()):
                yield node.body[0].lineno + offset, line
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# MUT: "):
            yield token.start[0], token.string


def private_words(source: pathlib.Path) -> tuple[float, list[str]]:
    """Return the private words per 1,000 words of docstrings and comments, and their places."""
    words, places = 0, []
    for path in sorted(source.rglob("*.py")):
        for number, line in prose(path.read_text()):
            words += len(re.findall(r"[A-Za-z']+", line))
            hits = PRIVATE_WORDS.findall(line)
            places += [f"{path.relative_to(source)}:{number}: {hit}" for hit in hits]
    return 1000 * len(places) / max(words, 1), places


def private_access(source: pathlib.Path) -> int:
    """Return how many lines are excused from the rule against another object's privates."""
    return sum(path.read_text().count("SLF001") for path in source.rglob("*.py"))


def main(root: pathlib.Path = HERE) -> None:
    """Print the table."""
    source = root / "src"
    rate, _ = private_words(source)
    rings = circles(source)
    print(f"import circles                   {len(rings)}")
    for ring in rings:
        print("    " + " <-> ".join(ring))
    print(f"lines over {COLUMNS} columns           {sum(1 for _ in long_lines(root))}")
    print(f"locals with an empty name        {sum(1 for _ in empty_names(source))}")
    print(f"private words per 1,000 words    {rate:.1f}")
    print(f"exceptions for private access    {private_access(source)}")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:2]))
