"""Small changes of one statement of the source, found by the mark above it: `# MUT: name`.

A change is a function of the statement and its surroundings. It raises LookupError if the statement
has no place for it; then the source has changed, and the table (mutations.py) has to follow.
"""

import ast
import importlib.util
import io
import os
import re
import tokenize

# The package is not imported here: a process that is forked from one which has imported it would
# not import a mutated copy.
(SOURCE,) = importlib.util.find_spec("efsstate").submodule_search_locations
MARK = re.compile(r"^\s*# MUT: (\S+)$", re.MULTILINE)
_BLOCKS = ("body", "handlers", "orelse", "finalbody")
_SPACE = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT}


class Statement:
    """A marked statement of a file, and the text around it."""

    def __init__(self, file, text, node, following):
        self.file, self.text, self.node, self.following = file, text, node, following
        starts = [0]
        for line in text.encode().splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self._starts = starts
        self.indent = " " * node.col_offset

    def span(self, node):
        """Return where `node` begins and ends, in bytes of the file."""
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def source(self, node):
        """Return the text of `node`."""
        start, end = self.span(node)
        return self.text.encode()[start:end].decode()

    def replaced(self, *changes):
        """Return the file's text with each (start, end, new text) in it."""
        data = self.text.encode()
        for start, end, new in sorted(changes, reverse=True):
            data = data[:start] + new.encode() + data[end:]
        return data.decode()

    def block(self, lines):
        """Return `lines` as statements at this one's indentation; the first has it already."""
        return f"\n{self.indent}".join(lines)


def drop():
    """Leave the statement out."""
    return become("pass")


def become(*lines):
    """Put other statements in its place."""
    return lambda at: at.replaced((*at.span(at.node), at.block(lines)))


def first(*lines):
    """Put other statements before it."""
    return lambda at: at.replaced((at.span(at.node)[0],) * 2 + (at.block([*lines, ""]),))


def late():
    """Do it after the statement that follows; if that one returns, before the function returns."""

    def change(at):
        if at.following is None:
            raise LookupError("no statement follows it")
        lines = [at.source(at.following), at.source(at.node)]
        if isinstance(at.following, ast.Return):
            lines[0] = f"_result = {at.source(at.following.value)}"
            lines.append("return _result")
        return at.replaced((at.span(at.node)[0], at.span(at.following)[1], at.block(lines)))

    return change


def once():
    """Turn the loop `while …` into a single pass."""

    def change(at):
        if not isinstance(at.node, ast.While):
            raise LookupError("it is no while loop")  # noqa: TRY004 - as the others
        return at.replaced((at.span(at.node)[0], at.span(at.node.test)[1], "for _ in (1,)"))

    return change


def holds(value):
    """Make its condition (the first one, of an expression's too) always true, or always false."""

    def change(at):
        places = [node.test for node in ast.walk(at.node) if hasattr(node, "test")]
        places += [
            test
            for node in ast.walk(at.node)
            if isinstance(node, ast.comprehension)
            for test in node.ifs
        ]
        if not places:
            raise LookupError("it has no condition")
        condition = min(places, key=at.span)
        return at.replaced((*at.span(condition), str(value)))

    return change


def without(*words):
    """Leave those clauses of its `and` or `or` out in which one of `words` is named."""

    def change(at):
        changes = []
        for node in ast.walk(at.node):
            if not isinstance(node, ast.BoolOp):
                continue
            for clause in node.values:
                text = at.source(clause)
                if any(re.search(rf"\b{word}\b", text) for word in words):
                    changes.append((*at.span(clause), str(isinstance(node.op, ast.And))))
        outer = [c for c in changes if not any(o[0] <= c[0] and c[1] < o[1] for o in changes)]
        if not outer:
            raise LookupError(f"no clause of it names {' or '.join(words)}")
        return at.replaced(*outer)

    return change


def instead(old, new):
    """Put `new` in the place of the tokens `old`, which it has once; white space does not count."""

    def change(at):
        wanted = [string for string, _, _ in _tokens(old)]
        # With its indentation, below a line that asks for it: else the text is no Python.
        head = f"if 1:\n{at.indent}" if at.indent else ""
        shift = at.span(at.node)[0] - len(head)
        tokens = [
            (string, shift + begin, shift + end)
            for string, begin, end in _tokens(head + at.source(at.node))
        ]
        strings = [string for string, _, _ in tokens]
        places = [
            n
            for n in range(len(strings) - len(wanted) + 1)
            if strings[n : n + len(wanted)] == wanted
        ]
        if len(places) != 1:
            raise LookupError(f"it has {len(places)} times {old!r}, not once")
        begin, end = tokens[places[0]][1], tokens[places[0] + len(wanted) - 1][2]
        return at.replaced((begin, end, new))

    return change


def _tokens(text):
    """Return (string, first byte, byte after it) of each token."""
    lines = text.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    texts = text.splitlines()

    def place(row, column):
        return starts[row - 1] + len(texts[row - 1][:column].encode())

    found = []
    try:
        found.extend(tokenize.generate_tokens(io.StringIO(text).readline))
    except tokenize.TokenError:  # a fragment of an expression
        pass
    return [
        (token.string, place(*token.start), place(*token.end))
        for token in found
        if token.type not in _SPACE and token.string
    ]


def marked(source=SOURCE):
    """Return {mark: Statement} for every mark of the package; a mark twice is a LookupError.

    A mark above an `except` clause marks that clause.
    """
    places = {}
    for folder, _, names in os.walk(source):
        for name in names:
            path = f"{folder}/{name}"
            if not name.endswith(".py"):
                continue
            with open(path) as file:
                text = file.read()
            for mark, statement in _marked_in(path.removeprefix(f"{source}/"), text):
                if mark in places:
                    raise LookupError(f"{mark}: it marks two statements")
                places[mark] = statement
    return places


def _marked_in(file, text):
    if "# MUT: " not in text:
        return
    following, beginning = {}, {}
    for node in ast.walk(ast.parse(text)):
        for block in (getattr(node, field, None) for field in _BLOCKS):
            if isinstance(block, list) and block:
                for statement, after in zip(block, [*block[1:], None], strict=True):
                    beginning.setdefault(statement.lineno, statement)
                    following[statement] = after
    lines = text.splitlines()
    for match in MARK.finditer(text):
        number = text.count("\n", 0, match.end()) + 2
        while number <= len(lines) and lines[number - 1].lstrip().startswith("#"):
            number += 1
        node = beginning.get(number)
        if node is None:
            raise LookupError(f"{file}: {match[1]}: no statement begins below the mark")
        yield match[1], Statement(file, text, node, following[node])
