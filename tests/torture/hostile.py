"""Plant what somebody with write access may: links, FIFOs, devices, folders, names.

With a signing key, everything that can be done without having it. Readers gain no code and no wrong
answer: misses and clear errors.
"""

import glob
import logging
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings

import efsstate
from efsstate import Cache, EfsStateError, cached, checkpoint, publish
from efsstate.format import entry
from tests import faults

CANARY = b"what lies outside of the root"
HUGE = 2**40  # bytes of a file that is one hole


class Evil:
    """Unpickled, it leaves a file: code ran that came from the mount."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


# Planted


def _link(path, outside):
    os.symlink(f"{outside}/file", path)


def _link_to_folder(path, outside):
    os.symlink(f"{outside}/folder", path)


def _link_to_itself(path, outside):
    os.symlink(os.path.basename(path), path)


def _fifo(path, outside):
    os.mkfifo(path)


def _socket(path, outside):
    here = os.getcwd()
    os.chdir(os.path.dirname(path))  # a socket's path may have 108 bytes at the most
    try:
        made = socket.socket(socket.AF_UNIX)
        made.bind("s")
        made.close()
        os.rename("s", os.path.basename(path))
    finally:
        os.chdir(here)


def _device(path, outside):
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: it has no end


def _folder(path, outside):
    os.makedirs(f"{path}/inside")


def _empty(path, outside):
    open(path, "w").close()


def _huge(path, outside):
    with open(path, "wb") as file:
        file.truncate(HUGE)  # a hole: it costs who makes it nothing


def _huge_with_a_true_head(path, outside):
    """An entry whose head tells of every byte of the hole behind it."""
    _root, _, place = path.partition("/root/")
    head = b"".join(
        map(
            bytes,
            entry.encode(
                b"x" * 1000,
                place=place,
                codec="msgpack",
                meta=bytes(16),
                created=time.time(),
                ttl=None,
            ),
        )
    )
    start = len(head) - 1000
    with open(path, "wb") as file:
        file.write(
            head[: entry.HEADER - 8] + (HUGE - start).to_bytes(8, "little") + head[entry.HEADER :]
        )
        file.truncate(HUGE)
    with open(path, "rb") as file:
        entry.peek(file.read(start), HUGE, path)  # raises where the head is not the true one


def _noise(path, outside):
    with open(path, "wb") as file:
        file.write(os.urandom(500))


PLANTS = [
    _link,
    _link_to_folder,
    _link_to_itself,
    _fifo,
    _socket,
    _device,
    _folder,
    _empty,
    _huge,
    _huge_with_a_true_head,
    _noise,
]
ADDRESSES = 4 << 30  # bytes of address space: threads reserve much that they never use
ROOM = 256 << 10  # KiB of memory that a process may take for whatever it meets


def _build(root):
    """A root with everything in it."""
    cache = Cache("c", root=root)
    for key in range(3):
        cache.set(key, {"value": key})
    cache.clear()
    for key in range(3):
        cache.set(key, {"value": key})
    with checkpoint("job", root=root) as job:
        for n in range(4):
            job.save(n)
    with checkpoint("parts", root=root).shards(2) as parts:
        for part in parts:
            part.save(1)
            break
    for n in range(2):
        source = f"{root}.source{n}"
        os.makedirs(source, exist_ok=True)
        for name in ("weights", "config"):
            with open(f"{source}/{name}", "w") as file:
                file.write(f"{name} {n}" * 50)
        publish("m", source, version=f"v{n}", root=root)
    efsstate.sweep(root=root)


def _everything(root):
    """Do every operation, each for itself; return texts of what is wrong."""
    wrong = []

    def attempt(name, function, allowed, fails=True):
        try:
            value = function()
        except (EfsStateError, OSError) as error:
            if not fails:
                wrong.append(f"{name} raised {type(error).__name__}: {error}")
        except Exception as error:
            wrong.append(f"{name} raised {type(error).__name__}: {error}")
        else:
            if not allowed(value):
                wrong.append(f"{name} gave {value!r:.200}")

    def work(n):
        return {"value": n}

    cache = Cache("c", root=root)
    computed = cached(name="c4", root=root)(work)
    for key in range(3):
        attempt(
            "get",
            lambda: cache.get(key),
            lambda value: value in (None, {"value": key}),
            fails=False,
        )
        attempt("call", lambda: computed(key), lambda value: value == {"value": key}, fails=False)
    attempt(
        "many",
        lambda: cache.get_many([0, 1, 2]),
        lambda found: all(value == {"value": key} for key, value in found.items()),
        fails=False,
    )
    attempt("keys", lambda: list(cache.keys()), lambda keys: set(keys) <= {0, 1, 2}, fails=False)
    attempt("delete", lambda: cache.delete(2), lambda _: True, fails=False)
    attempt("set", lambda: cache.set(1, {"value": 1}), lambda _: True, fails=False)
    attempt("clear", cache.clear, lambda _: True, fails=False)
    attempt(
        "load",
        lambda: checkpoint("job", root=root).load(),
        lambda state: state in (None, 0, 1, 2, 3),
    )
    attempt("status", lambda: checkpoint("job", root=root).status(), lambda _: True)
    attempt(
        "update",
        lambda: checkpoint("job", root=root).update(lambda state: state),
        lambda state: state in (None, 0, 1, 2, 3),
    )
    attempt(
        "progress",
        lambda: checkpoint("parts", root=root).shards(2).progress().done,
        lambda done: done == 0,
    )
    contents = [{name: f"{name} {n}" * 50 for name in ("weights", "config")} for n in range(2)]

    def read(files):
        return {name: bytes(files.read(name)).decode(errors="replace") for name in files.names}

    attempt(
        "model",
        efsstate.model("m", load=read, root=root),
        lambda found: found in contents or list(found) == ["m"],
    )  # a file of that name is a model put there by hand
    attempt("versions", lambda: efsstate.versions("m", root=root), lambda _: True)
    attempt("models", lambda: efsstate.models(root=root), lambda _: True)
    attempt("verify", lambda: efsstate.verify("m", root=root), lambda _: True)
    attempt(
        "publish", lambda: publish("m", f"{root}.source0", version="v5", root=root), lambda _: True
    )
    attempt("activate", lambda: efsstate.activate("m", "v0", root=root), lambda _: True)
    attempt("prune", lambda: efsstate.prune("m", keep=1, grace=0, root=root), lambda _: True)
    attempt("sweep", lambda: efsstate.sweep(root=root, older_than=0), lambda _: True)
    return wrong


COMMANDS = [
    ["ls"],
    ["stat"],
    ["verify"],
    ["gc", "--dry-run"],
    ["checkpoint", "ls"],
    ["model", "ls"],
    ["ls", "--json"],
]


def _little():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, resource.RLIM_INFINITY))


def _commands(root):
    """Run the command over it: a documented code, no traceback, no control characters."""
    wrong = []
    for words in COMMANDS:
        command = [sys.executable, "-m", "efsstate.cli.main", *words, "--root", root]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
                preexec_fn=_little,
            )
        except subprocess.TimeoutExpired:
            wrong.append(f"efsstate {' '.join(words)} does not end within 60 s")
            continue
        said = done.stdout + done.stderr
        if b"Traceback" in said or done.returncode not in (0, 1, 2, 3):
            wrong.append(f"efsstate {' '.join(words)}: code {done.returncode}: {said[-300:]!r}")
        if any(byte < 32 and byte not in b"\n\t\r" for byte in said):
            wrong.append(f"efsstate {' '.join(words)}: control characters: {said[:300]!r}")
    return wrong


def _outside(folder):
    os.makedirs(f"{folder}/folder/deeper")
    for name in ("file", "folder/file", "folder/deeper/file"):
        with open(f"{folder}/{name}", "wb") as file:
            file.write(CANARY)


def _bytes(path):
    with open(path, "rb") as file:
        return file.read()


def _print_of(folder):
    return sorted(
        (
            above,
            sorted(folders),
            [
                (name, os.stat(f"{above}/{name}").st_mtime_ns, _bytes(f"{above}/{name}"))
                for name in sorted(files)
            ],
        )
        for above, folders, files in os.walk(folder)
    )


def _paths(root):
    """Every place below the root, a folder of entries and its like once."""
    found = []
    for above, folders, files in os.walk(root):
        found += [os.path.relpath(f"{above}/{name}", root) for name in folders + files]
    return sorted(found)


def _quiet(function, *given):
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    return function(*given)


def _in_little_memory(function, *given):
    """The same, with what is wrong with the memory that it took.

    Asking for a TiB is a MemoryError, and not the end of the machine.
    """
    with open("/proc/self/statm") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = _quiet(function, *given)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return wrong + [f"it took {taken >> 10} MiB"] * (taken > ROOM)


def planted(seconds, seed):
    """A plant at every place, in a random order, until the time is up."""
    chance, until, wrong, count = random.Random(seed), time.monotonic() + seconds, [], 0
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as folder:
        start = f"{folder}/start/root"
        os.makedirs(start, 0o700)
        faults.elsewhere(_quiet, _build, start)
        todo = [
            (path, plant)
            for path in _paths(start)
            for plant in PLANTS
            if plant is not _device or os.geteuid() == 0
        ]
        total = len(todo)
        chance.shuffle(todo)
        while todo and (time.monotonic() < until or count < 2):  # on the slowest machine, too
            path, plant = todo.pop()
            base = f"{folder}/{count}"
            count += 1
            shutil.copytree(f"{folder}/start", base, symlinks=True)
            root = f"{base}/root"
            _outside(f"{base}/outside")
            before = _print_of(f"{base}/outside")
            target = f"{root}/{path}"
            if os.path.isdir(target) and not os.path.islink(target):
                shutil.rmtree(target)
            else:
                os.unlink(target)
            plant(target, f"{base}/outside")
            where = f"{plant.__name__[1:]} at {path}"
            try:
                wrong += [
                    f"{where}: {text}"
                    for text in faults.elsewhere(_in_little_memory, _everything, root)
                ]
                if not count % 25:
                    wrong += [f"{where}: {text}" for text in _commands(root)]
            except AssertionError as error:
                wrong.append(f"{where}: {error}")
            if _print_of(f"{base}/outside") != before:
                wrong.append(f"{where}: what lies outside of the root was changed")
            _remove(base)
    return {"planted": count, "places": total}, wrong


KINDS = [
    "cache/c/?/*",
    "cache/c/POLICY",
    "checkpoints/job/[0-9]*-*",
    "models/m/versions/CURRENT",
    "models/m/versions/v1/.efsstate-manifest",
    "models/m/versions/v1/weights",
]


def huge():
    """Put a sparse file of a TiB in the place of each kind of entry: a miss, or a clear error.

    Nothing of it is in memory.
    """
    wrong, count = [], 0
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as folder:
        start = f"{folder}/start/root"
        os.makedirs(start, 0o700)
        faults.elsewhere(_quiet, _build, start)
        for kind in KINDS:
            for plant in (_huge, _huge_with_a_true_head):
                root = f"{folder}/{count}/root"
                count += 1
                shutil.copytree(os.path.dirname(start), os.path.dirname(root), symlinks=True)
                path = max(glob.glob(f"{root}/{kind}"))
                os.unlink(path)
                plant(path, "")
                try:
                    found = faults.elsewhere(_in_little_memory, _everything, root)
                except AssertionError as error:
                    found = [str(error)]
                wrong += [f"{plant.__name__[1:]} at {kind}: {text}" for text in found]
                _remove(os.path.dirname(root))
    return {"huge_files": count}, wrong


def _remove(base):
    shutil.rmtree(base, ignore_errors=True)


# Names that are found in folders


NAMES = [
    b"\xff\xfe",
    b"a\x1b[31mred",
    b"new\nline",
    b"%1b]0;title%07",
    b"..x",
    b"\xe2\x80\xae",
    b"a" * 255,
    b"-rf",
    b" ",
    b"e1",
    b"b1",
    b"1-1",
    b"%",
    b"~",
    b"$(id)",
    b"'",
    b"e" + b"9" * 39,
    b"s0",
    b"d0.x",
    b".nfs1",
    b"LOCK",
    b"POLICY",
]


def names():
    """Make folders and files of every strange name everywhere.

    The library and the command go on.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = f"{folder}/root"
        os.makedirs(root, 0o700)
        faults.elsewhere(_quiet, _build, root)
        count = 0
        for above in [above for above, _, _ in os.walk(root)]:
            for n, name in enumerate(NAMES):
                path = os.path.join(os.fsencode(above), name)
                if not os.path.lexists(path):
                    if n % 2:
                        os.makedirs(path + b"/inside")
                    else:
                        with open(path, "wb") as file:
                            file.write(b"x")
                    count += 1
        wrong = [
            f"names: {text}"
            for text in _commands(root) + faults.elsewhere(_quiet, _everything, root)
        ]
        return {"names": count}, wrong


# Without the key


class Attacker:
    """Somebody who does what he likes to the files of a root, without the key.

    `mark` is the folder that his pickles would make.
    """

    def __init__(self, root, chance, mark):
        self._root, self._chance, self._mark = root, chance, mark
        self._kept = []  # (path, bytes or a link's text) of any time before
        self.edits = 0

    def _files(self):
        found = []
        for above, _, files in os.walk(self._root):
            found += [f"{above}/{name}" for name in files]
        return found

    def _content(self, path):
        if os.path.islink(path):
            return os.readlink(path)
        with open(path, "rb") as file:
            return file.read(10**6)

    def _put(self, path, content):
        """In one step, as ours are put: a half-written file would only be damage."""
        temporary = f"{self._root}/.tmp-attack"
        if isinstance(content, str):
            os.symlink(content, temporary)
        else:
            with open(temporary, "wb") as file:
                file.write(content)
        os.rename(temporary, path)

    def _forged(self, path):
        """An entry as one without the key would make it, for this place."""
        import pickle

        place = os.path.relpath(path, self._root)
        payload = self._chance.choice([pickle.dumps(Evil(self._mark)), b"\xa4evil"])
        parts = entry.encode(
            payload,
            place=place,
            codec=self._chance.choice(["pickle", "msgpack", "json"]),
            meta=bytes(16),
            created=time.time(),
            ttl=None,
            key=self._chance.choice([None, b"guess" * 6]),
        )
        return b"".join(map(bytes, parts))

    def step(self):
        files = self._files()
        if not files:
            return
        chance = self._chance
        path, other = chance.choice(files), chance.choice(files)
        try:
            content = self._content(path)
            self._kept.append((path, content))
            del self._kept[: max(0, len(self._kept) - 300)]
            what = chance.randrange(11)
            if what == 0:
                self._put(other, content)  # copied to another place
            elif what == 1:
                os.rename(path, other)
            elif what == 2:
                self._put(*chance.choice(self._kept))  # put back as it was
            elif what == 3:
                os.unlink(path)
            elif what == 4 and isinstance(content, bytes) and content:
                flipped = bytearray(content)
                flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
                self._put(path, bytes(flipped))
            elif what == 5 and isinstance(content, bytes):
                self._put(path, content[: chance.randrange(len(content) + 1)])
            elif what in (6, 7):
                self._put(path, self._forged(path))
            elif what == 8 and isinstance(content, bytes):
                # The same size: what a check of sizes alone would let through.
                import pickle

                evil = pickle.dumps(Evil(self._mark))
                self._put(path, (evil + bytes(len(content)))[: max(len(content), 1)])
            elif what == 9:
                self._put(
                    path,
                    chance.choice(
                        ["- " + "0" * 32, "999999-1 x", "/etc/passwd", str(content)[:200] or "x"]
                    ),
                )
            elif what == 10:
                name = f"{chance.choice('eb')}{chance.randrange(1, 10**14)}"
                claim = f"{self._root}/checkpoints/job/{name}"
                os.symlink(chance.choice(["-", "x" * 40, "{}"]), claim)
            self.edits += 1
        except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, OSError):
            pass


def _victim(root, seconds, seed, count):
    """A function with the key: it compares what it reads with all that was ever written there."""
    import pickle

    os.environ["EFSSTATE_SIGNING_KEY"] = "only the victim has it"
    os.environ["TMPDIR"] = f"{root}.tmp"
    os.makedirs(f"{root}.tmp", exist_ok=True)
    chance, wrong, found = (
        random.Random(seed),
        [],
        {"reads": 0, "misses": 0, "errors": 0, "edits": 0},
    )
    versions = {}
    for n in range(3):
        with open(f"{root}.model{n}", "wb") as file:
            file.write(pickle.dumps({"weights": n, "pad": "x" * 400}))
    mark = f"{root}.code-ran"

    def recover():
        """The deployment puts its things there again, where they are gone."""
        for n in range(3):
            try:
                publish("m", f"{root}.model{n}", version=f"v{n}-{found['edits']}", root=root)
                versions[n] = True
            except (EfsStateError, OSError):
                found["errors"] += 1

    def load(files):
        how = chance.randrange(4)
        if how == 0:
            return pickle.loads(files.read())  # as torch.load would
        if how == 1:
            with open(files.path, "rb") as file:
                return pickle.load(file)
        if how == 2:
            return pickle.loads(files.mmap())
        with open(files.stage(), "rb") as file:
            return pickle.load(file)

    attacker = Attacker(root, random.Random(seed + 1), mark)
    caches = [Cache("c", root=root, memory=0), Cache("p", codec="pickle", root=root, memory=0)]
    states = set()
    recover()
    until, rounds = time.monotonic() + seconds, 0
    while (time.monotonic() < until and rounds < count) or not rounds:
        rounds += 1
        if not rounds % 50:
            recover()
        for _ in range(chance.randrange(4)):
            attacker.step()
        found["edits"] = attacker.edits
        cache, key = chance.choice(caches), chance.randrange(5)
        what = chance.randrange(5)
        try:
            if what == 0:
                cache.set(key, {"key": key, "name": cache.name, "n": rounds})
            elif what == 1:
                value = cache.get(key, fresh=chance.random() < 0.5)
                found["reads" if value is not None else "misses"] += 1
                if value is not None and (value.get("key"), value.get("name")) != (key, cache.name):
                    wrong.append(f"the cache gave {value!r} for {key} of {cache.name}")
            elif what == 2:
                try:
                    job = checkpoint("job", accept_older=chance.random() < 0.5, root=root)
                    if chance.random() < 0.5:
                        state = job.load()
                    else:
                        states.add(rounds)  # acknowledged or not, it may count
                        with job:
                            state = job.state
                            job.save(rounds)
                    found["reads"] += 1
                    if state is not None and state not in states:
                        wrong.append(f"the checkpoint gave {state!r}, which was never saved")
                except (EfsStateError, OSError):
                    found["errors"] += 1
            elif what == 3:
                try:
                    value = efsstate.model("m", load=load, root=root)()
                    found["reads"] += 1
                    if value.get("weights") not in versions:
                        wrong.append(f"the model gave {value!r:.100}")
                except (EfsStateError, OSError):
                    found["errors"] += 1
            elif chance.random() < 0.2:
                try:
                    efsstate.sweep(root=root)
                except (EfsStateError, OSError):
                    found["errors"] += 1
        except Exception as error:
            import traceback

            wrong.append(
                f"{['set', 'get', 'checkpoint', 'model', 'sweep'][what]} raised "
                f"{type(error).__name__}: {error}: {traceback.format_exc()[-300:]}"
            )
        if os.path.exists(mark):
            wrong.append("code from the mount ran")
            os.rmdir(mark)
        if len(wrong) > 5:
            break
    found["rounds"] = rounds
    return found, wrong


def attacked(seconds, seed):
    """Let an attacker without the key attack a function that has it, each round on a new root."""
    until, figures, wrong, round_ = time.monotonic() + seconds, {}, [], 0
    while time.monotonic() < until or not round_:
        with tempfile.TemporaryDirectory(
            dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        ) as folder:
            root = f"{folder}/root"
            os.makedirs(root, 0o700)
            left = max(1.0, min(20.0, until - time.monotonic()))
            found, bad = faults.elsewhere(_quiet, _victim, root, left, seed + round_, 10**9)
            wrong += [f"attack, seed {seed + round_}: {text}" for text in bad]
            for name, number in found.items():
                figures[name] = figures.get(name, 0) + number
        round_ += 1
    return figures, wrong


def run(seconds, seed):
    warnings.simplefilter("ignore")
    figures, wrong = {}, []
    for part in (
        names,
        huge,
        lambda: planted(seconds * 0.55, seed),
        lambda: attacked(seconds * 0.35, seed),
    ):
        more, bad = part()
        figures |= more
        wrong += bad
    for text in wrong:
        print(f"VIOLATION {text}", flush=True)
    return figures | {"violations": len(wrong)}
