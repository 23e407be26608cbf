"""The examples in the docstrings are Python, so a line that an edit dropped in is found."""

import ast
import doctest
import pathlib
import re
import textwrap

import efsstate

TOP = pathlib.Path(efsstate.__file__).parent
STARTS = re.compile(r"\s*(?:@|(?:async|class|def|from|import|with)\s|(?:\w+ = )?[\w.]+\()")


def docstrings():
    for path in sorted(TOP.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(
                node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            ) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(TOP)}:{getattr(node, 'lineno', 1)}", text


def examples(text):
    """Yield code that is fenced, prompted, or indented and begins as Python does.

    Tables and grammars do not. Paragraphs that begin indented are one example; a line without an
    indent in one of them belongs to it, and does not parse.
    """
    yield from re.findall(r"^ *```python\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    yield from [one.source for one in doctest.DocTestParser().get_examples(text)]
    for block in re.findall(r"(?:(?<=\n\n)|\A)    .*?(?=\n\n(?! {4})|\Z)", text, re.DOTALL):
        if STARTS.match(block):
            yield block


def parses(code):
    try:
        ast.parse(textwrap.dedent(code))
    except SyntaxError:
        return False
    return True


def test_every_example_parses():
    found = [(where, code) for where, text in docstrings() for code in examples(text)]
    assert {where for where, _ in found} >= {"testing/__init__.py:1", "cli/output.py:1"}
    assert [where for where, code in found if not parses(code)] == []


def test_what_an_example_is():
    whole = (
        "Do.\n\n    from a import b\n\n    with b():\n        pass\n\nAnd on.\n\n"
        "    a table   of words\n    with b    and more"
    )
    assert list(examples(whole)) == [
        "    from a import b\n\n    with b():\n        pass"
    ] and parses(*examples(whole))
    dropped = whole.replace("import b\n", "import b\nfrom c import d\n")
    assert len(list(examples(dropped))) == 1 and not parses(*examples(dropped))
    assert list(examples("Do.\n\n>>> 1 +\n\n```python\n2 +\n```")) == ["2 +\n", "1 +\n"]
