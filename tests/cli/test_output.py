"""The conventions of all commands: documents, exit codes, filters, questions, colours."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import warnings

import click
import pytest

from efsstate.cli import app, output
from efsstate.cli.output import Listing

KINDS = {"path": "text", "size": "size", "age": "age", "count": "count", "hot": "flag"}
ROWS = [
    {"path": f"p{i}", "size": i * 1024, "age": i * 3600.0, "count": i, "hot": i % 2 == 0}
    for i in range(10)
]


def of(*filters, sort=None, limit=None):
    return Listing(filters, sort, limit).of(iter(ROWS), KINDS, sort="path")


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        (["size>7KiB"], [8, 9]),
        (["size >= 7KiB"], [7, 8, 9]),
        (["age<2h"], [0, 1]),
        (["age<=2h", "hot=yes"], [0, 2]),
        (["hot=no", "count>6"], [7, 9]),
        (["path~p3"], [3]),
        (["path=p3"], [3]),
        (["path!=p3", "count<5"], [0, 1, 2, 4]),
        (["count=99"], []),
    ],
)
def test_filters(filters, numbers):
    rows, matched = of(*filters)
    assert [row["count"] for row in rows] == numbers and matched == len(numbers)


@pytest.mark.parametrize(
    "bad", ["age>soon", "size>many", "weight>1", "age", "age>", "", "count>x", "age=>1d", "age>30"]
)
def test_a_bad_filter_is_a_usage_error_that_names_columns(bad):
    with pytest.raises(click.UsageError, match="filter"):
        of(bad)


def test_order_and_limit():
    assert [row["count"] for row in of(sort="size", limit=2)[0]] == [9, 8]
    assert [row["count"] for row in of(sort="size:asc", limit=2)[0]] == [0, 1]
    assert next(row["count"] for row in of(sort="path:desc")[0]) == 9
    assert of(limit=3)[1] == 10
    for bad in ("weight", "size:up"):
        with pytest.raises(click.UsageError, match="sort"):
            of(sort=bad)


def test_rows_without_a_value_come_last_and_pass_no_filter():
    rows = [{"path": "a", "age": None}, {"path": "b", "age": 5.0}, {"path": "c", "age": 9.0}]
    for sort, order in (("age", "cba"), ("age:asc", "bca")):
        assert (
            "".join(row["path"] for row in Listing([], sort, None).of(rows, KINDS, sort="path")[0])
            == order
        )
        assert (
            "".join(row["path"] for row in Listing([], sort, 3).of(rows, KINDS, sort="path")[0])
            == order
        )
    assert Listing(["age<1d"], None, None).of(rows, KINDS, sort="path")[1] == 2


@pytest.mark.parametrize(
    ("argv", "code", "schema"),
    [
        (["stat"], 0, "efsstate.stat"),
        (["ls", "nonsense"], 2, "efsstate.error"),
        (["ls", "--sort", "x"], 2, "efsstate.error"),
        (["nope"], 2, "efsstate.error"),
        (["ls", "--limit", "0"], 2, "efsstate.error"),
        (["show"], 2, "efsstate.error"),
        (["gc"], 2, "efsstate.error"),
        (["stat", "--root", "/does/not/exist"], 3, "efsstate.error"),
        (["ls", "cache/none"], 3, "efsstate.error"),
        (["show", "cache/thumbnails/0/" + "0" * 48], 3, "efsstate.error"),
    ],
)
def test_with_json_there_is_one_document_whatever_happens(shell, argv, code, schema):
    told = shell.json(*argv, code=code)
    assert told["schema"] == schema and told["version"] == 1
    if code > 1:
        assert told["error"]["exit"] == code and told["error"]["message"]


def test_without_json_an_error_is_one_line_on_standard_error(shell):
    code, out, err = shell("ls", "cache/none")
    assert (
        code == 3
        and out == ""
        and err.startswith("efsstate: ")
        and err.count("\n") == 1
        and "cache/none" in err
    )


def test_interrupted_is_130(monkeypatch, capsys):
    from efsstate.cli import stat

    def interrupt(*_args, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr(stat, "open_root", interrupt)
    assert app.run(["stat"]) == 130
    assert app.run(["stat", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["error"]["exit"] == 130


def test_help_lists_every_command_that_is_there(capsys):
    assert app.run(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("ls", "stat", "show", "gc", "verify", "rm", "checkpoint"):
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
    assert app.run(["--version"]) == 0 and capsys.readouterr().out.startswith("efsstate ")


def test_help_says_where_the_root_goes_and_what_rm_removes(capsys):
    app.run(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "--root, before or after the command" in text
        and "rm Remove a namespace, an entry or a checkpoint. " in text
    )


def test_an_error_about_the_root_names_the_option(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "none"))
    for command in (["ls"], ["gc", "-y"], ["model", "list"]):
        assert app.run(command) == 3
        assert capsys.readouterr().err.endswith(", or pass --root\n")
    assert app.run(["model", "list", "--root", str(tmp_path / "none")]) == 3
    assert "the root (--root) does not exist" in capsys.readouterr().err


def test_every_command_that_is_listed_loads_and_has_help(capsys):
    for name in app.efsstate.list_commands(None):
        assert app.run([name, "--help"]) == 0, name
        assert "Usage: efsstate " + name in capsys.readouterr().out


def test_the_extra_is_named_where_it_is_missing():
    """In a process where click can't be imported: one line, exit code 3."""
    code = (
        "import sys; sys.modules['click'] = None\n"
        "from efsstate.cli.main import main; sys.exit(main(['ls']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 3 and run.stdout == ""
    assert run.stderr.count("\n") == 1 and "pip install 'efsstate[cli]'" in run.stderr


def test_the_core_never_imports_click_or_rich():
    code = (
        "import sys\nfrom efsstate import sweep, janitor\nimport efsstate.ops\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('click', 'rich')])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


def test_a_reader_that_has_enough_is_no_error(tree):
    """`efsstate ls | head -1`."""
    for i in range(1500):
        tree.file(f"cache/thumbnails/0/{i:048x}", body=b"")
    command = f"{sys.executable} -m efsstate.cli.main ls --limit 5000 | head -1"
    run = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True
    )
    assert run.stderr == "" and run.returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_text_that_an_encoding_lacks_is_spelled(encoding, tree):
    """Python's standard output is ASCII in a locale C without coercion, and in many containers."""
    tree.file("cache/caf\u00e9 \u65e5/0/" + "0" * 48, body=b"x" * 5000)
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for command in ("ls", "stat"):
        run = subprocess.run(
            [sys.executable, "-m", "efsstate.cli.main", command],
            capture_output=True,
            env=environment,
        )
        assert run.returncode == 0 and run.stderr == b""
        assert b"\\u65e5" in run.stdout and b"\\u258" not in run.stdout
    assert b"##" in run.stdout


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        ("ls >&-", 0, ""),
        ("ls <&- >&- 2>&-", 0, ""),
        ("gc <&-", 2, "without a terminal it needs -y"),
        ("ls --json >/dev/full", 3, "No space left on device"),
        ("ls >/dev/full", 3, "No space left on device"),
    ],
)
def test_standard_streams_that_are_closed_or_full(redirection, code, message, tree):
    run = subprocess.run(
        ["bash", "-c", f"exec {sys.executable} -m efsstate.cli.main {redirection}"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == code and message in run.stderr
    assert run.stderr.count("\n") == bool(message)


def test_names_on_the_mount_do_not_drive_the_terminal(shell):
    shell.tree.file("cache/stray\x1b[31m")
    _, out, _ = shell("gc", "-y")
    assert "stray" in out and "\x1b" not in out


def terminal(argv, *, answer="", env=()):
    """The command on a terminal of its own: what it shows, and its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # a fork beside threads: the child replaces itself at once
        pid, fd = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm-256color", **dict(env)})
        os.execv(sys.executable, [sys.executable, "-m", "efsstate.cli.main", *argv])
    shown = b""
    timer = threading.Timer(60, os.kill, (pid, signal.SIGKILL))
    timer.start()
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:  # how a terminal ends
            break
        shown += data
        if answer and b"[y/N]" in shown:
            os.write(fd, answer.encode())
            answer = ""
        if not data:
            break
    timer.cancel()
    timer.join()
    os.close(fd)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_on_a_terminal_there_is_colour_and_with_no_color_none(tree):
    shown, code = terminal(["stat"])
    assert code == 0 and "\x1b[3" in shown
    shown, code = terminal(["stat"], env=[("NO_COLOR", "1")])
    assert code == 0 and not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)


def test_on_a_terminal_it_asks_and_says_what_and_how_much(tree):
    shown, code = terminal(["gc"], answer="n\n")
    assert code == 0 and "5 files" in shown and "KiB" in shown and tree.entries("thumbnails") == 12
    shown, code = terminal(["gc"], answer="y\n")
    assert code == 0 and tree.entries("thumbnails") == 7


def test_progress_is_shown_on_a_terminal_only(tree):
    shown, _ = terminal(["verify"])
    assert "Verifying" in shown
    run = subprocess.run(
        [sys.executable, "-m", "efsstate.cli.main", "verify"], capture_output=True, text=True
    )
    assert run.returncode == 0 and run.stderr == "" and "Verifying" not in run.stdout


def test_sizes_and_ages_for_people():
    assert [output.bytes_text(n) for n in (0, 1023, 1536, 2**20, 5 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "1.0 MiB",
        "5.0 TiB",
    ]
    assert [output.age_text(n) for n in (None, 5, 90, 7200, 86400 * 3, -90)] == [
        "-",
        "5s",
        "1.5m",
        "2.0h",
        "3.0d",
        "-1.5m",
    ]


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["list"], ["ls"]),
        (["sweep", "--dry-run"], ["gc", "--dry-run"]),
        (["checkpoints", "list"], ["checkpoint", "ls"]),
        (["models", "ls"], ["model", "list"]),
        (["datasets", "list"], ["dataset", "ls"]),
        (["version"], ["--version"]),
    ],
)
def test_other_words_for_a_command(shell, words, same):
    first, second = shell(*words), shell(*same)
    assert first[0] == second[0] == 0
    clean = [re.sub(r"[\d.]+ ?[smhd]\b( ago)?", "", text[1]) for text in (first, second)]
    assert clean[0] == clean[1]


def test_the_root_may_be_named_in_front(tree, capfd, monkeypatch):
    monkeypatch.delenv("EFSSTATE_ROOT")
    assert app.run(["--root", tree.path, "ls", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["root"] == tree.path
    assert app.run(["--root", "/does/not/exist", "ls", "--root", tree.path]) == 0
    capfd.readouterr()
    assert app.run(["--root", "/does/not/exist", "ls"]) == 3


def test_help_is_a_command_too(capsys):
    for words in (["help"], ["help", "gc"], ["help", "checkpoint", "ls"], ["help", "list"]):
        assert app.run(words) == 0
        name = {"list": "ls"}.get(words[-1], words[-1])
        assert ("Usage: efsstate" if name == "help" else name) in capsys.readouterr().out
    assert app.run(["help", "nonsense"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lss"], "No such command 'lss'. Did you mean 'ls'?"),
        (["chekpoint", "ls"], "Did you mean 'checkpoint'?"),
        (["xyzzy"], "No such command 'xyzzy'. (see"),
        (["template"], "Choose from: sam, cloudformation, terraform"),
        (["--root", "", "ls"], "'': the root is not a folder"),
    ],
)
def test_a_mistake_is_answered_in_one_line_that_helps(shell, words, said):
    code, out, err = shell(*words)
    assert code in (2, 3) and out == "" and said in err and err.count("\n") == 1


def test_numbers_have_their_plural():
    texts = [output.count_text(number, "file") for number in (0, 1, 2, 1000)]
    assert texts == ["0 files", "1 file", "2 files", "1,000 files"]
    assert output.count_text(2, "entry", "entries") == "2 entries"
