"""Each safety measure switched off in a copy of the package, and the tests that must go red then.

A measure whose tests stay green without it is one that nobody would miss: a missing test, or a
needless measure. `python -m tests.torture.mutation [WORD]` runs those with the word in the title.
"""

import compileall
import contextlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from tests.nfs.lab import missing
from tests.sharing import durations
from tests.torture import MEMORY, forked
from tests.torture.edits import SOURCE, marked
from tests.torture.mutations import MUTATIONS

HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLOWEST = 25  # seconds for a mutation's tests, plus five times their usual time
WORKERS = 3  # mutations at once: many wait for a lease, or hang
SERVER = forked.server()


def mutated_text(statement, mutation):
    """Return the file's text with the mutation in it; LookupError if it can't be made."""
    text = mutation.change(statement)
    try:
        compile(text, statement.file, "exec")
    except SyntaxError as error:
        raise LookupError(f"{statement.file}: the change makes no Python: {error}") from None
    if text == statement.text:
        raise LookupError(f"{statement.file}: the change changes nothing")
    return text


def faults_of_the_table(statements, mutations, tests_folder=f"{HERE}/tests"):
    """Yield what is missing: a mark without a row, a row without its mark, a change, or a test."""
    for mark in sorted(statements.keys() - mutations.keys()):
        yield f"{mark}: marked in {statements[mark].file}, and not in tests/torture/mutations.py"
    for mark in sorted(mutations.keys() - statements.keys()):
        yield f"{mark}: in tests/torture/mutations.py, and marked nowhere in src"
    for mark in sorted(statements.keys() & mutations.keys()):
        try:
            mutated_text(statements[mark], mutations[mark])
        except LookupError as error:
            yield f"{mark}: {statements[mark].file}: {error}"
    for mark, mutation in sorted(mutations.items()):
        for test in mutation.tests:
            path, _, function = test.partition("::")
            try:
                with open(f"{tests_folder}/{path}") as file:
                    text = file.read()
            except FileNotFoundError:
                text = ""
            name = re.escape(function.partition("[")[0])
            if not re.search(rf"def {name}\b" if name else "def test_", text):
                yield f"{mark}: there is no test {test}"


def copied(folder, statement=None, text=""):
    """Make the package in `folder` of links, with the new text of one file; return `folder`.

    A copy of all files would take longer than most of the tests.
    """
    shutil.copytree(SOURCE, f"{folder}/efsstate", copy_function=os.symlink)
    if statement:
        path = f"{folder}/efsstate/{statement.file}"
        os.unlink(path)
        with open(path, "w") as file:
            file.write(text)
    return folder


def run_tests(folder, names, *more, patience=SLOWEST):
    """Return (exit code, lines of output) of these tests on the package in `folder`."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as own:
        said = f"{own}/said"
        arguments = ["-q", "-p", "no:cacheprovider", "--no-header", "--tb=line", *more]
        arguments += [f"--basetemp={own}/base", *(f"{HERE}/tests/{name}" for name in names)]
        running = SERVER.Process(target=forked.run_pytest, args=(folder, said, arguments))
        running.start()
        running.join(patience)
        code = "hangs" if running.is_alive() else running.exitcode
        running.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # whom its tests started
        running.join()
        with open(said) as file:
            return code, file.read().splitlines()


def attempt(statement, mutation, usual=0.0):
    """Return (whether it was noticed, by which test or why not); a hang is noticed, too.

    `usual`: the seconds that its tests take without it.
    """
    # The lab's guest has a /dev/shm of its own.
    with tempfile.TemporaryDirectory(dir=None if mutation.nfs else MEMORY) as folder:
        try:
            copied(folder, statement, mutated_text(statement, mutation))
        except LookupError as error:
            return False, f"it can't be made: {error}"
        code, said = run_tests(folder, mutation.tests, "-x", patience=SLOWEST + 5 * usual)
    if code == "hangs":
        return True, f"hangs: tests/{mutation.tests[0]}"
    if code == 1 and _failed(said):
        return True, _failed(said)[0]
    return False, "green" if code == 0 else f"code {code}: {' | '.join(said[-3:])[:300]}"


def is_in(test, name):
    """Return True if `test`, without its parameters, is the test or in the module `name`."""
    return f"{test}::".startswith(f"{name.partition('[')[0]}::")


def _failed(said):
    matches = (re.match(r"(?:FAILED|ERROR) (tests/.+?)(?: - |$)", line) for line in said)
    return [match[1] for match in matches if match]


def run(seconds, seed, word="", say=print):
    """Try all of them if there are two minutes at least; else as many as there is time for."""
    statements = marked()
    chosen = {
        mark: mutation
        for mark, mutation in MUTATIONS.items()
        if word in mutation.title and mark in statements and not (mutation.nfs and missing())
    }
    wrong = list(faults_of_the_table(statements, MUTATIONS)) if not word else []
    rows, until = {}, time.monotonic() + (seconds if seconds < 120 else 10**6)
    every = sorted({test for mutation in chosen.values() for test in mutation.tests})
    # Each copy has this bytecode, too: compiling takes longer than most of the tests.
    compileall.compile_dir(SOURCE, quiet=2)
    with tempfile.TemporaryDirectory() as folder:
        code, said = run_tests(copied(folder), every, "--durations=0", patience=1500)
        if code != 0:
            names = ", ".join(_failed(said)) or " | ".join(said[-2:])[:300]
            wrong.append(f"without any mutation: {names}")
    usual = durations("\n".join(said))
    order = list(chosen)
    random.Random(seed).shuffle(order)
    noticed = []

    def try_one(mark):
        if time.monotonic() > until:
            return
        title, names = chosen[mark].title, chosen[mark].tests
        own = sum(usual[test] for test in usual if any(is_in(test, name) for name in names))
        is_noticed, by = attempt(statements[mark], chosen[mark], own)
        noticed.append(is_noticed)
        rows[title] = [statements[mark].file, by]
        say(f"{'red  ' if is_noticed else 'GREEN'}  {title:<48} {by}", flush=True)
        if not is_noticed:
            wrong.append(f"{title}: {by}")

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(try_one, order))
    for text in wrong:
        say(f"VIOLATION {text}", flush=True)
    titles = [mutation.title for mutation in chosen.values()]
    return {
        "mutations": len(rows),
        "of": len(chosen),
        "noticed": sum(noticed),
        "violations": len(wrong),
        "rows": {title: rows[title] for title in titles if title in rows},
    }


if __name__ == "__main__":
    run(10**6, 0, *sys.argv[1:2])
