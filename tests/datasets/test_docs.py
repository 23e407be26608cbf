"""Every block of docs/datasets.md runs, and each value that it promises is right."""

import pathlib
import re

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "datasets.md"
BLOCK = re.compile(r"<!-- example -->\n```python\n(.*?)```", re.DOTALL)


def promised(line):
    """Return the (expression, value) of a line such as `len(x)  # 3: three parts`."""
    code, _, comment = line.partition("  # ")
    value = re.match(r"(True|False|\d+|\[.*?\])(?=:|$)", comment.strip())
    return (code.strip(), value[1]) if value and not line.startswith(" ") else None


def test_the_pages_blocks_run_and_give_their_values(tmp_path):
    """In the page's order, in one process."""
    namespace = {"root": tmp_path, "train_on": len}
    blocks = BLOCK.findall(PAGE.read_text())
    seen = 0
    for block in blocks:
        tail = []
        for line in block.splitlines():
            found = promised(re.sub(r"\s{2,}#", "  #", line))
            if found is None:
                tail.append(line)
                continue
            exec("\n".join(tail), namespace)
            tail = []
            assert repr(eval(found[0], namespace)) == found[1], line
            seen += 1
        exec("\n".join(tail), namespace)
    assert len(blocks) >= 7 and seen >= 7
