"""Explore every order of steps of the real protocol code, over a mount that is a small model.

An actor is a call of `PartFolders` on a mount whose operations are recorded. The code is
deterministic, so an actor's state is the list of answers that it got so far: to take its next step
it is run again from the beginning with these answers, up to the first operation beyond them. So the
whole state is small and can be hashed, and every state is visited once. An actor that is never
chosen again has crashed.

The model's client forgets nothing: a name that it has looked up and missed stays missing for it,
until it refreshes the folder or changes it itself. That is what an NFS client does.
"""

from __future__ import annotations

import os
from collections import deque

from efsstate.datasets import protocol
from efsstate.datasets.protocol import Claim, PartFolders
from efsstate.format import dataset_layout as names

KEY = "0" * 32


class Pause(BaseException):
    """The actor wants to carry out an operation whose answer is not recorded yet."""

    def __init__(self, operation):
        super().__init__()
        self.operation = operation


class Answers:
    """A mount that gives recorded answers, and pauses at the first operation without one."""

    key = None

    def __init__(self, answers):
        self._answers = iter(answers)

    def path_of(self, *parts):
        return "/".join(parts)

    def _ask(self, *operation):
        for answer in self._answers:
            if isinstance(answer, type):
                raise answer(*operation)
            return answer
        raise Pause(operation)

    def symlink(self, folder, name, text):
        return self._ask("symlink", folder, name, text)

    def readlink(self, folder, name):
        return self._ask("readlink", folder, name)

    def stat(self, folder, name):
        inode = self._ask("stat", folder, name)
        return os.stat_result((0o100600, inode, 0, 1, 0, 0, 0, 0, 0, 0))

    def refresh(self, folder):
        return self._ask("refresh", folder)

    def rename(self, folder, name, to_folder, to_name, *, inode, durable):
        return self._ask("rename", folder, name, to_folder, to_name)

    def remove(self, folder, name, *, quiet=False):
        return self._ask("remove", folder, name)


def carry_out(files, missing, operation):
    """Return (answer, files, missing) after one operation of one actor on the server."""
    kind, folder, *rest = operation
    if kind == "refresh":
        return None, files, frozenset(name for name in missing if name[0] != folder)
    name = (folder, rest[0])
    contents = dict(files)
    if kind == "symlink":  # exclusive: it always asks the server, and updates the client's folder
        missing = frozenset(n for n in missing if n[0] != folder)
        if name in contents:
            return FileExistsError, files, missing
        return None, files | {(name, rest[1])}, missing
    if name in missing or name not in contents:
        answer = False if kind == "remove" else FileNotFoundError
        return answer, files, missing | {name}
    if kind in ("readlink", "stat"):
        return contents[name], files, missing
    del contents[name]
    missing = missing | {name}
    if kind == "rename":
        target = (rest[1], rest[2])
        contents[target] = dict(files)[name]
        missing = frozenset(n for n in missing if n[0] != target[0])
        return None, frozenset(contents.items()), missing
    return True, frozenset(contents.items()), missing


class World:
    """The actors, what they do, and what must hold in every state."""

    def __init__(self, writers=2, removers=0, swept=0):
        self.actors = []
        self.files = set()
        for index in range(writers):
            claim = Claim(f"{index:016x}", f".tmp-{KEY}-{index:016x}", "")
            claim.part = names.part_name(KEY, index, f"{index:032x}", "")
            self.files.add(((f"d/staging/{claim.process}", claim.staged), 100 + index))
            self.actors.append(self._writer(claim))
            if index < swept:
                self.actors.append(self._sweeper(claim))
        self.actors += [self._remover for _ in range(removers)]
        self.writers = writers

    def _writer(self, claim):
        def write(folders):
            copy = Claim(claim.process, claim.staged, claim.part)
            return folders.publish(KEY, copy, exclusive=True)

        return write

    def _sweeper(self, claim):
        def sweep(folders):
            folders.discard(claim)
            return "", "swept"

        return sweep

    def _remover(self, folders):
        folders.remove(KEY)
        return "", "removal"

    def advance(self, index, answers):
        """Return (result, None) if the actor is done, else (None, its next operation)."""
        folders = PartFolders(Answers(answers), "d")
        try:
            return self.actors[index](folders), None
        except Pause as pause:
            return None, pause.operation
        except protocol.EfsStateError:
            return ("", "error"), None

    def check(self, files, results):
        """Return what is wrong in a state, or None."""
        contents = dict(files)
        visible = [name for folder, name in contents if folder == "d/parts"]
        is_marked = ("d/keys", names.gone_name(KEY)) in contents
        if len(visible) > 1:
            return "two parts of one key"
        for part, outcome in filter(None, results):
            told = outcome in (protocol.ADDED, protocol.PRESENT)
            if told and part not in visible and not is_marked:
                return f"acknowledged as {outcome}, and not there"
            if outcome == "removal" and visible:
                return "removed and visible"
        return None

    def check_end(self, results):
        """Return what is wrong where every actor is done."""
        outcomes = [outcome for _, outcome in results]
        if "removal" not in outcomes and "swept" not in outcomes:
            writers = outcomes[: self.writers]
            if "error" in writers or protocol.REMOVED in writers:
                return "a writer failed without a reason"
        return None


def explore(world, limit=2_000_000):
    """Visit every state; return (their number, the first violation or None)."""
    count = len(world.actors)
    start = (frozenset(world.files), ((),) * count, (frozenset(),) * count)
    seen, waiting = {start}, deque([start])
    while waiting:
        files, answers, missing = waiting.popleft()
        steps = [world.advance(i, answers[i]) for i in range(count)]
        results = [result for result, _ in steps]
        wrong = world.check(files, results)
        if wrong is None and all(operation is None for _, operation in steps):
            wrong = world.check_end(results)
        if wrong is not None:
            return len(seen), wrong
        for i, (_, operation) in enumerate(steps):
            if operation is None:
                continue
            answer, changed, known = carry_out(files, missing[i], operation)
            state = (
                changed,
                (*answers[:i], (*answers[i], answer), *answers[i + 1 :]),
                (*missing[:i], known, *missing[i + 1 :]),
            )
            if state not in seen:
                seen.add(state)
                waiting.append(state)
        if len(seen) > limit:
            raise AssertionError(f"more than {limit} states")
    return len(seen), None
