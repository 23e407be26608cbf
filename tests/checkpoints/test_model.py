"""The protocol's model explored, each rule broken in turn, and the code's requests.

One by one, held against the model's.
"""

import errno
import os
import random
import threading

import pytest
from tests.checkpoints.model.explore import explore
from tests.checkpoints.model.protocol import LOST, OWN, Protocol, Rules
from tests.checkpoints.model.spaces import BROKEN, BROKEN_FULL, FULL, SPACES

from efsstate.checkpoints import newest, protocol, saves
from efsstate.errors import ClaimLost
from efsstate.format import codec as codecs
from efsstate.format import layout
from efsstate.mount.files import Mount


@pytest.mark.parametrize("name", SPACES)
def test_no_order_of_requests_loses_what_was_acknowledged(name):
    """No order of requests loses what was acknowledged or shown."""
    result = explore(Protocol(Rules(**SPACES[name])))
    assert result.complete and not result.found, result


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_nor_in_the_larger_spaces(name):
    result = explore(Protocol(Rules(**FULL[name])), limit=20_000_000)
    assert result.complete and not result.found, result


@pytest.mark.parametrize(
    "name", [*BROKEN, *(pytest.param(name, marks=pytest.mark.slow) for name in BROKEN_FULL)]
)
def test_without_any_one_rule_the_search_finds_a_violation(name):
    result = explore(Protocol(Rules(**{**BROKEN, **BROKEN_FULL}[name])))
    assert result.found, result


# The code against the model: a random walk of the model tells which process makes its next request,
# and each request of the
# code must be the model's, and leave the folder as the model has it.


class Killed(BaseException):
    pass


class Process:
    """A thread that stops before each request until it is let go.

    `asks` is the request that it stands before.
    """

    def __init__(self, program):
        self.asks, self.ended, self.fault = None, False, None
        self.go, self.parked = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, args=(program,), daemon=True)
        self.thread.start()
        assert self.parked.acquire(timeout=20)

    def _run(self, program):
        try:
            program(self)
        except (Killed, ClaimLost, protocol.Superseded):
            pass
        except BaseException as error:
            self.fault = error
        self.ended, self.asks = True, None
        self.parked.release()

    def request(self, what, act):
        """Called by the process: stop before the request `what`, then `act`.

        The scheduler may have it fail.
        """
        self.asks, self.outcome = what, None
        self.parked.release()
        self.go.acquire()
        if self.outcome == "kill":
            raise Killed
        if self.outcome == "error before":
            raise OSError(errno.EIO, "injected")
        value = act()
        if self.outcome == "error after":
            raise OSError(errno.EIO, "injected")
        if self.outcome == "reply lost":
            raise FileExistsError(errno.EEXIST, "injected")
        return value

    def step(self, outcome=None):
        self.outcome = outcome
        self.go.release()
        assert self.parked.acquire(timeout=20), self.asks
        if self.fault:
            raise self.fault


class Gated(Mount):
    """A mount whose requests each ask the process first."""

    process = None

    def names(self, folder):
        return self.process.request("list", lambda: super(Gated, self).names(folder))

    def watch(self, folder):
        reader, process = super().watch(folder), self

        class Watched:
            def names(self):
                return process.process.request("list", reader.names)

        return Watched()

    def symlink(self, folder, name, note, **options):
        return self.process.request(
            f"symlink {name}", lambda: super(Gated, self).symlink(folder, name, note, **options)
        )

    def readlink(self, folder, name):
        return self.process.request(
            f"readlink {name}", lambda: super(Gated, self).readlink(folder, name)
        )

    def read(self, folder, name, *options, **named):
        return self.process.request(
            f"read {name}", lambda: super(Gated, self).read(folder, name, *options, **named)
        )

    def rename(self, folder, name, to_folder, to_name, **options):
        return self.process.request(
            f"rename {to_name}",
            lambda: super(Gated, self).rename(folder, name, to_folder, to_name, **options),
        )


class Replay:
    """The code's side of a walk."""

    def __init__(self, path, rules):
        self.path, self.rules, self.model = path, rules, Protocol(rules)
        self.root, self.folder = str(path), layout.checkpoint_folder("job")
        here = Mount(self.root)
        here.make(self.folder)
        here.create(self.folder, layout.LOCK, lambda _: [])
        os.utime(path / self.folder / layout.LOCK, (0, 0))  # so that the first epoch is 1
        self.processes, self.owners, self.saved, self.loaded = {}, {}, {}, {}

    def at(self, process):
        mount = Gated(self.root)
        mount.process = process
        return protocol.CheckpointFolder(mount, self.folder)

    def mask_of(self, found):
        return codecs.loads(found.save.state) if found.save else 0

    def worker(self, i):
        done, most = self.model.done, self.rules.saves[i]

        def program(process):
            folder = self.at(process)
            reader = folder.mount.watch(self.folder)
            epoch, found = folder.claim("{}", reader=reader)
            mask = self.owners[i] = self.mask_of(found)
            number, finished = 0, mask & done
            while self.saved.get(i, 0) < most and not finished:
                mask |= 1 << (i * 4 + self.saved.get(i, 0))
                number += 1
                save = saves.Save((epoch, number))
                save.state, save.finished = [codecs.dumps(mask)], bool(mask & done)
                meta, payload = saves.pack(folder.mount, self.folder, save)
                try:
                    folder.save(save.key, meta, payload, codec="msgpack", ttl=None, reader=reader)
                except ClaimLost:
                    self.saved[i] = self.saved.get(i, 0) + 1
                    raise
                except OSError:
                    continue
                self.saved[i] = self.saved.get(i, 0) + 1
                finished = mask & done

        return program

    def loader(self, i):
        def program(process):
            folder = self.at(process)
            while True:
                self.loaded[i] = self.mask_of(folder.newest()[0])

        return program

    def process(self, who):
        if who not in self.processes:
            program = self.worker if who[0] == "w" else self.loader
            self.processes[who] = Process(program(int(who[1:])))
        return self.processes[who]

    def end(self, who):
        process = self.processes.pop(who, None)
        if process and not process.ended:
            process.step("kill")

    def files(self):
        """Epochs, bases and saves on the disk, as the model has them."""
        mount, found = Mount(self.root), ([], [], [])
        folder = protocol.CheckpointFolder(mount, self.folder)
        for name in mount.names(self.folder):
            kind, *key = layout.parse_claim(name) or ("", 0)
            if kind == "e":
                found[0].append(key[0])
            elif kind == "b":
                found[1].append((key[0], folder.base(key[0])))
            elif kind == "g":
                found[2].append((*key, 1, codecs.loads(folder.read(tuple(key)).state)))
        return tuple(map(sorted, found))

    def follow(self, state, label, after):
        """Make the code do what the model did."""
        who, what = label
        if who == "s":
            os.unlink(self.path / self.folder / what.removeprefix("remove "))
        elif what in ("crash", "try again", "mark"):
            self.end(who)
            if what == "crash":
                self.saved[int(who[1])] = after.workers[int(who[1])].saved
        else:
            process = self.process(who)
            asked = what.split(":")[0].split(",")[0].split(" ->")[0].split(" =")[0]
            assert process.asks == asked, (
                f"{who}: the code asks for {process.asks}, the model for {what}"
            )
            outcome = None
            if what.endswith("error"):
                outcome = "error after" if " = " in what else "error before"
            elif "reply lost" in what:
                outcome = "reply lost"
            process.step(outcome)
        assert self.files() == tuple(
            map(sorted, (after.folder.epochs, after.folder.bases, after.folder.saves))
        ), what
        if who[0] == "w":
            before, now = state.workers[int(who[1])], after.workers[int(who[1])]
            if now.at == OWN and before.at != OWN and before.number == 0:
                assert self.owners[int(who[1])] == now.mask
            if now.at == LOST:
                assert self.processes[who].ended
            assert self.saved.get(int(who[1]), 0) == now.saved
        if who[0] == "l" and after.loaders[0].at == 0 and state.loaders[0].at != 0:
            assert self.loaded.pop(0) & ~after.folder.seen == 0


@pytest.mark.parametrize(
    "options",
    [{"saves": (2, 2)}, {"saves": (2, 1), "claims": (2, 2)}, {"errors": 2, "lost": 2}],
    ids=str,
)
def test_the_codes_requests_are_the_models(options, tmp_path, monkeypatch):
    monkeypatch.setattr(newest.time, "sleep", lambda _: None)
    monkeypatch.setattr(newest, "_REPEATS", 10**9)
    monkeypatch.setattr(newest, "_ONE_REPLY", 10**9)
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    chance = random.Random(seed)
    asked = 0
    while asked < 3000:
        print("a walk")
        path = tmp_path / str(asked)
        path.mkdir()
        replay = Replay(path, Rules(**options))
        state = replay.model.initial()
        for _ in range(60):
            steps = [
                step
                for step in replay.model.next(state)
                if step[0][1] != "crash" or chance.random() < 0.2
            ]
            if not steps:
                break
            label, after, bad = chance.choice(steps)
            assert not bad
            print(*label)
            replay.follow(state, label, after)
            state, asked = after, asked + 1
        for who in list(replay.processes):
            replay.end(who)
