"""A shell completes commands, options, places and names, as bash itself asks for them."""

import os
import shutil
import subprocess
import sys

import pytest

from efsstate import checkpoint

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

# What bash does at a Tab: call the function that was registered, and read COMPREPLY.
TAB = """
eval "$(_EFSSTATE_COMPLETE=bash_source efsstate)"
COMP_WORDS=(efsstate "$@")
COMP_CWORD=$#
_efsstate_completion efsstate
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def press_tab(tree, tmp_path):
    """`press_tab("checkpoint", "show", "im")` returns what bash would offer for the last word."""
    command = tmp_path / "bin" / "efsstate"
    command.parent.mkdir()
    main = "import sys; from efsstate.cli.main import main; sys.exit(main())"
    command.write_text(f"#!{sys.executable}\n{main}\n")
    command.chmod(0o755)
    environment = os.environ | {
        "EFSSTATE_ROOT": tree.path,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }

    def press(*words, **more):
        done = subprocess.run(
            ["bash", "-c", TAB, "bash", *words],
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        return done.stdout.split("\n")[:-1]

    return press


def test_bash_completes_commands_places_and_names(press_tab, tree):
    with checkpoint("x" * 300, root=tree.path) as job:
        job.save(1)
    assert press_tab("ch") == ["checkpoint"]
    assert press_tab("ls", "c") == ["cache/", "checkpoints/"]
    assert press_tab("ls", "cache/") == ["cache/pricing", "cache/thumbnails"]
    assert press_tab("rm", "checkpoints/im") == ["checkpoints/import/2026-11-01"]
    assert press_tab("checkpoint", "show", "back") == ["backfill"]
    assert press_tab("model", "verify", "") == ["resnet50"]
    assert press_tab("dataset", "show", "rev") == ["reviews/raw"]
    assert press_tab("checkpoint", "show", "xxx") == ["x" * 300]


def test_without_a_root_nothing_is_offered_and_nothing_made(press_tab, tmp_path):
    missing = str(tmp_path / "missing")
    assert press_tab("ls", "cache/", EFSSTATE_ROOT=missing) == [""]
    assert press_tab("--root", missing, "model", "verify", "") == [""]
    assert not os.path.exists(missing)
