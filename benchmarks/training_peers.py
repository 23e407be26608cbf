"""What is left of training data after a kill and after two writers: `python -m` this module.

It boots the NFS lab. Each library writes numbered samples, and acknowledges one when it has taken
it and asks for the next, at the pace of a collector. One attack kills a writer with SIGKILL at two
thirds. The other lets two writers, one on each client, write other samples to one place at once:
the second begins when the first has written one. Then a new process on the second client reads the
place. Samples that were acknowledged and are not read are lost.

The peers are the packages of the group `peers` (`pip install --group peers`, in an environment of
its own: some of them want older releases of what others use).
"""

import argparse
import glob
import importlib.abc
import importlib.machinery
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import types
import warnings

from benchmarks import processes

HERE = pathlib.Path(__file__).resolve().parent
SAMPLES = 300
PACE = 0.01  # seconds between samples
LONGEST = 600  # seconds for both attacks on one library: its import alone may take minutes


class Ours:
    """`efsstate.dataset`, with a key for each sample."""

    name, package = "`efsstate.dataset`", "efsstate"

    @staticmethod
    def load():
        import efsstate.datasets.freezing
        import efsstate.datasets.snapshot  # noqa: F401

    @staticmethod
    def write(folder, numbers, acknowledge):
        from efsstate import dataset

        parts = dataset("numbers", root=folder)
        for n in numbers:
            parts.add(str(n).encode(), ".txt", key=str(n))
            acknowledge(n)

    @staticmethod
    def read(folder):
        from efsstate import dataset

        for _, data in dataset("numbers", root=folder).freeze("all").read():
            yield int(bytes(data))


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import empty modules in place of packages that a library imports and that nothing calls here.

    Importing transformers takes the lab ten minutes: it reads the metadata of every package.
    """

    def __init__(self, *packages):
        self._packages = packages

    def find_spec(self, name, _path, _target=None):
        if name.partition(".")[0] not in self._packages:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: type(name, (), {})
        return module

    def exec_module(self, module):
        pass


class Mds:
    """MosaicML streaming; `exist_ok`, without which a second writer is refused."""

    name, package = "MosaicML streaming (MDS)", "mosaicml-streaming"

    @staticmethod
    def load():
        sys.meta_path.insert(0, StandIns("transformers", "torchvision"))
        import streaming  # noqa: F401

    @staticmethod
    def write(folder, numbers, acknowledge):
        from streaming import MDSWriter

        with MDSWriter(out=folder, columns={"n": "int"}, size_limit=2048, exist_ok=True) as out:
            for n in numbers:
                out.write({"n": n})
                acknowledge(n)

    @staticmethod
    def read(folder):
        from streaming import StreamingDataset

        for sample in StreamingDataset(local=folder, batch_size=1, shuffle=False):
            yield int(sample["n"])


class LitData:
    """LitData; `mode="append"`, without which a second writer is refused."""

    name, package = "LitData", "litdata"

    @staticmethod
    def load():
        os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
        import litdata  # noqa: F401

    @staticmethod
    def write(folder, numbers, acknowledge):
        from litdata import optimize

        def samples(n):
            yield {"n": n}
            acknowledge(n)

        with tempfile.TemporaryDirectory() as cache:  # each host has a disk of its own
            os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = cache
            optimize(
                fn=samples,
                inputs=list(numbers),
                output_dir=folder,
                num_workers=1,
                chunk_size=50,
                mode="append",
                start_method="fork",
                verbose=False,
            )

    @staticmethod
    def read(folder):
        from litdata import StreamingDataset

        data = StreamingDataset(folder)
        for i in range(len(data)):
            yield int(data[i]["n"])


class WebDataset:
    """WebDataset, as its documentation writes: one pattern of names for the shards."""

    name, package = "WebDataset", "webdataset"

    @staticmethod
    def load():
        import webdataset  # noqa: F401

    @staticmethod
    def write(folder, numbers, acknowledge):
        from webdataset import ShardWriter

        with ShardWriter(f"{folder}/%05d.tar", maxcount=50, verbose=0) as out:
            for n in numbers:
                out.write({"__key__": f"{n:08d}", "txt": str(n)})
                acknowledge(n)

    @staticmethod
    def read(folder):
        import webdataset

        shards = sorted(glob.glob(f"{folder}/*.tar"))
        for sample in webdataset.WebDataset(shards, shardshuffle=False):
            yield int(sample["txt"])


LIBRARIES = {kind.__name__.lower(): kind for kind in (Ours, Mds, LitData, WebDataset)}


class Child:
    """A process of its own that prints numbers; forked, as an import takes the lab a minute."""

    def __init__(self, work):
        receiving, sending = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.setpgid(0, 0)
            os.close(receiving)
            code = 1
            try:
                for quiet in (1, 2):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), quiet)
                work(lambda n: os.write(sending, b"%d\n" % n))
                code = 0
            finally:
                os._exit(code)
        os.close(sending)
        self.numbers = os.fdopen(receiving, "rb")

    def kill(self):
        """Kill it with the processes that it started, as a host's end does."""
        os.killpg(self.pid, signal.SIGKILL)

    def end(self):
        """Return the numbers that it has still printed, and its exit code."""
        numbers = {int(line) for line in self.numbers if line.endswith(b"\n")}
        self.numbers.close()
        return numbers, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def writer(library, folder, first):
    """Start a writer of `SAMPLES` samples."""
    numbers = range(first, first + SAMPLES)

    def write(show):
        def acknowledge(n):
            show(n)
            time.sleep(PACE)

        library.write(str(folder), numbers, acknowledge)

    return Child(write)


def readable(library, folder):
    """Return the samples that a new process reads."""

    def read(show):
        for n in library.read(str(folder)):
            show(n)

    return Child(read).end()[0]


def kill_a_writer(library, a, b):
    """Return the acknowledged samples, and the readable ones, of a writer killed at two thirds."""
    victim, acknowledged = writer(library, a, 0), set()
    for line in victim.numbers:
        acknowledged.add(int(line))
        if len(acknowledged) == SAMPLES * 2 // 3:
            victim.kill()
            break
    acknowledged |= victim.end()[0]
    return acknowledged, readable(library, b), ""


def let_two_write(library, a, b):
    """Return the acknowledged samples of two writers, the readable ones, and the exit codes."""
    first = writer(library, a, 0)
    acknowledged = {int(first.numbers.readline())}
    ends = [each.end() for each in (first, writer(library, b, SAMPLES))]
    acknowledged = acknowledged.union(*(numbers for numbers, _ in ends))
    return acknowledged, readable(library, b), [code for _, code in ends]


def attacks(library, a, b):
    """Yield the outcome of each attack on one library."""
    warnings.simplefilter("ignore")
    library.load()
    for attack in (kill_a_writer, let_two_write):
        places = [folder / f"{library.__name__.lower()}-{attack.__name__}" for folder in (a, b)]
        places[0].mkdir()
        acknowledged, left, codes = attack(library, *places)
        yield {"acknowledged": len(acknowledged), "read": len(acknowledged & left), "exits": codes}


def version(library):
    """Return the version of the library, None if it is not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version(library.package)
    except importlib.metadata.PackageNotFoundError:
        return None


def table(libraries, a, b):
    """Yield the lines of the table, below two mounts of one export."""
    yield "| library | killed: acknowledged, read | two at once: acknowledged, read | exits |"
    yield "|---|---|---|---|"
    for library in libraries:
        known = version(library)
        if known is None:
            yield f"| {library.name} | not installed | | |"
            continue
        rows = processes.isolated(attacks, library, a, b, timeout=LONGEST)
        title = library.name if library is Ours else f"{library.name} {known}"
        if failed := [row["failed"] for row in rows if "failed" in row]:
            yield f"| {title} | {failed[0]} | | |"
            continue
        killed, two = rows
        cells = [f"{row['acknowledged']}, {row['read']}" for row in rows]
        assert killed["acknowledged"] and two["acknowledged"], "no writer has written"
        yield f"| {title} | {cells[0]} | {cells[1]} | {', '.join(map(str, two['exits']))} |"


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_peers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--inside", nargs=2, metavar="MOUNT", help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", default=",".join(LIBRARIES), help=f"some of {','.join(LIBRARIES)}"
    )
    options = parser.parse_args()
    libraries = [LIBRARIES[name] for name in options.only.split(",")]
    if options.inside:
        a, b = (pathlib.Path(mount) / "peers" for mount in options.inside)
        a.mkdir()
        for line in table(libraries, a, b):
            print(line, flush=True)
        return
    inside = [sys.executable, "-m", "benchmarks.training_peers", "--inside", "/mnt/a", "/mnt/b"]
    lab = [sys.executable, "-m", "tests.nfs.lab", "--mem", "6G", "--"]
    command = [*lab, *inside, "--only", options.only]
    sys.exit(subprocess.run(command, cwd=HERE.parent).returncode)


if __name__ == "__main__":
    main()
