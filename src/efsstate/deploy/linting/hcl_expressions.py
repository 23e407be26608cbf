"""Follows Terraform's expressions as far as variables' defaults, locals and resources go; the rest is unknown until deployed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import hcl2

from efsstate.deploy.linting.values import Joined, Ref, Unknown, known, walk

_RESOURCE = re.compile(r"(aws_\w+)\.([\w-]+)((?:\[.*?\])?(?:\.[\w-]+)*)$")
_MENTION = re.compile(r"(?<![\w.])((?:data\.)?aws_\w+\.[\w-]+|(?:local|module)\.[\w-]+)")
_VARIABLE = re.compile(r"(?<![\w.])var\.([\w-]+)")
_PIECE = re.compile(r"\$\{((?:[^{}]|\{[^{}]*\})*)\}")
_ORDER = ("||", "&&", "==", "!=")
MAX_DEPTH = 40


class Scope:
    """The names of a module: variables' defaults, locals, data sources and resources."""

    def __init__(self) -> None:
        """Empty; the reader fills it."""
        self.variables: dict[str, Any] = {}
        self.locals: dict[str, Any] = {}
        self.data: dict[str, dict[str, Any]] = {}
        self.resources: set[str] = set()
        self.document: Callable[[dict[str, Any]], Any] = lambda _: None
        self.each: Any = None
        self.depth = 0

    def value(self, raw: Any) -> Any:
        """A value as the parser gives it, followed: text, Ref, Unknown, None, or a list or dict of these."""
        if isinstance(raw, list):
            return [self.value(one) for one in raw]
        if isinstance(raw, dict):
            return {
                key.strip('"'): self.value(one)
                for key, one in raw.items()
                if not key.startswith("__")
            }
        if isinstance(raw, bool):
            return str(raw).lower()
        if raw is None or isinstance(raw, int | float):
            return None if raw is None else str(raw)
        text = str(raw)
        if (
            text.startswith("${")
            and text.endswith("}")
            and _PIECE.fullmatch(text.replace("\n", " "))
        ):
            return self.expression(text[2:-1].strip())
        if text.startswith('"') and text.endswith('"') and len(text) > 1:
            return self.template(text[1:-1])
        return self.expression(
            text[2:-1].strip() if text.startswith("${") and text.endswith("}") else text
        )

    def template(self, text: str) -> Any:
        """Quoted text, with what stands in `${…}` followed."""
        if text.startswith("<<"):  # a heredoc: its marks are the first and the last line
            text = "\n".join(text.splitlines()[1:-1])
        if "${" not in text:
            return text.replace('\\"', '"')
        refs: list[str] = []
        open_ended = False

        def one(match: re.Match[str]) -> str:
            nonlocal open_ended
            value = self.expression(match[1].strip())
            if isinstance(value, Ref):
                refs.append(str(value))
                return "${" + str(value) + "}"
            if isinstance(value, Joined):
                refs.extend(value.refs)
                return str(value)
            if known(value):
                return str(value)
            open_ended = True
            return "${" + match[1].strip() + "}"

        made = _PIECE.sub(one, text).replace('\\"', '"')
        if len(refs) == 1 and made == "${" + refs[0] + "}":
            return Ref(refs[0])
        return Joined(made, tuple(refs)) if refs or open_ended else made

    def expression(self, text: str) -> Any:
        """An expression outside quotes."""
        self.depth += 1
        try:
            return Unknown(text[:200]) if self.depth > MAX_DEPTH else self._expression(text)
        finally:
            self.depth -= 1

    def _expression(self, text: str) -> Any:
        if text == "null":
            return None
        if text in ("true", "false") or re.fullmatch(r"-?\d+(\.\d+)?", text):
            return text
        if (
            len(text) > 1
            and text[0] == text[-1] == '"'
            and '"' not in text[1:-1].replace('\\"', "")
        ):
            return self.template(text[1:-1])
        question = _top(text, "?")
        if question:
            colon = _top(question[1], ":")
            taken = self.truth(question[0])
            if colon and taken is not None:
                return self.expression(colon[0] if taken else colon[1])
            return Unknown(text[:200])
        if any(_top(text, sign) for sign in _ORDER) or text.startswith("!"):
            taken = self.truth(text)
            return Unknown(text[:200]) if taken is None else str(taken).lower()
        if text.startswith("(") and text.endswith(")"):
            return self.expression(text[1:-1].strip())
        call = re.fullmatch(r"(\w+)\((.*)\)", text, re.DOTALL)
        if call:
            return self.call(call[1], call[2], text)
        if text[:1] in "[{":
            return self.literal(text)
        return self.name(text)

    def call(self, function: str, arguments: str, text: str) -> Any:
        """The few functions that keep what they are given."""
        if function in ("jsonencode", "toset", "tolist", "tostring", "sort", "distinct", "compact"):
            return (
                self.literal(arguments)
                if arguments[:1] in "[{"
                else self.expression(arguments.strip())
            )
        if function == "length":
            value = self.expression(arguments.strip())
            return str(len(value)) if isinstance(value, list) else Unknown(text[:200])
        if function == "concat":
            lists = [self.expression(one) for one in _commas(arguments)]
            return (
                [one for some in lists for one in some]
                if all(isinstance(one, list) for one in lists)
                else Unknown(text[:200])
            )
        return Unknown(text[:200])

    def literal(self, text: str) -> Any:
        """A list or an object in an expression."""
        if re.match(r"[\[{]\s*for\s", text):
            return Unknown(text[:200])
        try:
            return self.value(hcl2.loads(f"x = {text}\n")["x"])
        except Exception:  # whatever the parser raises on what it does not take
            return Unknown(text[:200])

    def name(self, text: str) -> Any:
        """A dotted name."""
        first, _, rest = text.partition(".")
        key = re.split(r"[.\[]", rest)[0]
        whole = key == rest
        if first == "var" and whole and key in self.variables and self.variables[key] is not None:
            return self.value(self.variables[key])
        if first == "local" and whole and key in self.locals:
            return self.value(self.locals[key])
        if first == "each" and key == "value" and isinstance(self.each, Ref):
            return self.each
        if first == "data":
            parts = rest.split(".")
            document = self.data.get(".".join(parts[:2]))
            if document is not None and parts[0] == "aws_iam_policy_document":
                return self.document(document)
            if document is not None and parts[0] == "aws_availability_zones":
                index = re.search(r"\[(\d+)\]$", text)
                return f"zone {index[1]} of the region" if index else Unknown(text[:200])
            return Unknown(text[:200])
        found = _RESOURCE.fullmatch(text)
        if found and f"{found[1]}.{found[2]}" in self.resources and "*" not in found[3]:
            return Ref(f"{found[1]}.{found[2]}")
        return Unknown(text[:200])

    def truth(self, text: str) -> bool | None:
        """Whether a condition holds with the defaults; None where that is not known."""
        text = text.strip()
        for sign in _ORDER:
            sides = _top(text, sign)
            if not sides:
                continue
            if sign in ("||", "&&"):
                left, right = self.truth(sides[0]), self.truth(sides[1])
                end = sign == "||"
                return end if end in (left, right) else None if None in (left, right) else not end
            one, other = self.expression(sides[0].strip()), self.expression(sides[1].strip())
            if isinstance(one, Unknown | Joined | Ref) or isinstance(other, Unknown | Joined | Ref):
                return None
            return bool(one == other) is (sign == "==")
        for sign, low in ((">", False), ("<", True)):
            sides = _top(text, sign)
            if sides:
                try:
                    low_side, high_side = (float(self.expression(one.strip())) for one in sides)
                except (TypeError, ValueError):
                    return None
                return low_side < high_side if low else low_side > high_side
        if text.startswith("!"):
            value = self.truth(text[1:])
            return None if value is None else not value
        value = self.expression(text)
        return {"true": True, "false": False}.get(value) if isinstance(value, str) else None

    def undeclared(self, raw: Any) -> bool:
        """Whether a value names what the files do not declare: they are a part of a module."""
        texts = [one for one in walk(raw) if isinstance(one, str)]
        names = {name for text in texts for name in _MENTION.findall(text)}
        known_names = {
            *self.resources,
            *(f"local.{name}" for name in self.locals),
            *(f"data.{name}" for name in self.data),
        }
        variables = {name for text in texts for name in _VARIABLE.findall(text)}
        names = {name for name in names if not name.startswith("module.")}
        return bool(names - known_names or variables - set(self.variables))

    def mentions(self, raw: Any, seen: frozenset[str] = frozenset()) -> set[str]:
        """The resources that a value mentions, through locals and data sources too."""
        found: set[str] = set()
        todo, looked = [raw], set(seen)
        while todo:
            one = todo.pop()
            if isinstance(one, dict):
                todo.extend(one.values())
            elif isinstance(one, list):
                todo.extend(one)
            elif isinstance(one, str):
                for name in _MENTION.findall(one):
                    if name in looked:
                        continue
                    looked.add(name)
                    if name.startswith("local."):
                        todo.append(self.locals.get(name[6:]))
                    elif name.startswith("data."):
                        todo.append(self.data.get(name[5:]))
                    elif name in self.resources or name.startswith("module."):
                        found.add(name)
        return found


def _scan(text: str, separator: str) -> list[int]:
    """Where a separator stands outside of brackets and quotes."""
    found, depth, quoted, index = [], 0, False, 0
    while index < len(text):
        char = text[index]
        if quoted:
            index += 2 if char == "\\" else 1
            quoted = char != '"'
            continue
        if char == '"':
            quoted = True
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0 and text.startswith(separator, index):
            found.append(index)
        index += 1
    return found


def _top(text: str, separator: str) -> tuple[str, str] | None:
    at = _scan(text, separator)
    return (text[: at[0]], text[at[0] + len(separator) :]) if at else None


def _commas(text: str) -> list[str]:
    ends = [*_scan(text, ","), len(text)]
    starts = [0, *(one + 1 for one in ends[:-1])]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
