"""docs/recipes.md: each block runs, in order, and twice, as a warm environment does."""

import importlib.util
import pathlib
import re
import sys

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "recipes.md"


def test_every_recipe_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 13
    path = tmp_path / "recipes.py"
    path.write_text("\n".join(blocks))
    for _ in range(2):
        spec = importlib.util.spec_from_file_location("recipes", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["recipes"] = module
        spec.loader.exec_module(module)
    del sys.modules["recipes"]
