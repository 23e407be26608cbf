"""Fuzz every parser of bytes from the mount, by coverage (atheris); and try bombs.

Bombs are small files that ask for much.

`python -m tests.torture.fuzz PARSER [libFuzzer's options]` is one parser alone. With atheris a
child runs each parser, with limits on memory and on the time of one input; where atheris is not to
be had (it is built for some Pythons alone), inputs are made by random changes of the seeds.
"""

import base64
import importlib.util
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings

MEMORY = 1024  # MiB that a parser may come to have, the libraries and the fuzzer's corpus included
SLOWEST = 10  # seconds of one input
LONGEST = 4096  # bytes of one input


def guided(name, seconds, seed, folder):
    """(inputs tried, what went wrong) of one parser, by atheris in a child of its own."""
    from tests.torture.parsers import PARSERS

    corpus = f"{folder}/{name}"
    os.makedirs(corpus, exist_ok=True)
    for n, data in enumerate(PARSERS[name][2]):
        with open(f"{corpus}/{n}", "wb") as file:
            file.write(data)
    tried, wrong, until = 0, [], time.monotonic() + seconds
    while (left := until - time.monotonic()) > 1 and len(wrong) < 5:
        command = [
            sys.executable,
            "-m",
            "tests.torture.fuzz",
            name,
            f"-max_total_time={max(1, int(left))}",
            f"-seed={seed % 2**31 + len(wrong)}",
            f"-rss_limit_mb={MEMORY}",
            f"-timeout={SLOWEST}",
            f"-max_len={LONGEST}",
            f"-artifact_prefix={folder}/{name}-",
            corpus,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=left + 120
        )
        counts = [
            int(one)
            for one in re.findall(r"^#(\d+)|^Done (\d+)", done.stderr, re.MULTILINE)
            for one in one
            if one
        ]
        tried += max(counts, default=0)
        if done.returncode:
            made = [one for one in os.listdir(folder) if one.startswith(f"{name}-")]
            data = b""
            for one in made:
                with open(f"{folder}/{one}", "rb") as file:
                    data = file.read()
                os.unlink(f"{folder}/{one}")
            reason = re.findall(
                r"^(?:\w+(?:\.\w+)*Error.*|.*ERROR: libFuzzer.*|\w+: .*)$",
                done.stderr,
                re.MULTILINE,
            )
            wrong.append(
                f"{name} {base64.b64encode(data[:3000]).decode()}: "
                f"{' | '.join(reason[:3])[:400] or done.stderr[-400:]}"
            )
    return tried, wrong


def changed(name, seconds, seed):
    """The same by random changes of the seeds, here."""
    from tests.torture.parsers import PARSERS, attempt

    chance, until, tried, wrong = random.Random(f"{seed} {name}"), time.monotonic() + seconds, 0, []
    seeds = PARSERS[name][2]
    while time.monotonic() < until and len(wrong) < 5:
        data = bytearray(seeds[tried] if tried < len(seeds) else chance.choice(seeds))
        for _ in range(chance.randrange(5) if tried >= len(seeds) else 0):
            at = chance.randrange(len(data) + 1)
            what = chance.randrange(4)
            if what == 0 and data:
                data[at % len(data)] = chance.randrange(256)
            elif what == 1:
                data[at:at] = chance.choice(seeds)[: chance.randrange(1, 30)]
            elif what == 2:
                data[at : at + 4] = chance.choice(
                    [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"]
                )
            else:
                del data[at : at + chance.randrange(6)]
        tried += 1
        try:
            attempt(name, bytes(data))
        except Exception as error:
            wrong.append(
                f"{name} {base64.b64encode(bytes(data)).decode()}: {type(error).__name__}: {error}"[
                    :800
                ]
            )
    return tried, wrong


# Bombs: (parser, what it is, bytes)


def bombs():
    """Small payloads that ask for much: lengths, nesting, shapes, digits."""
    import struct

    import msgpack

    def ext(code, data):
        return msgpack.packb(msgpack.ExtType(code, data))

    def apart(message):
        return b"\xc1" + struct.pack("<I", len(message)) + message

    def marked(code, *items):
        """What an empty extension marks, as the codec has it."""
        return apart(msgpack.packb([msgpack.ExtType(code, b""), *items]))

    for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"):
        yield "codec_loads", "a length of 4 GiB", head + b"\xff\xff\xff\xff"
    yield "codec_loads", "lists in lists", b"\x91" * 10**6 + b"\xc0"
    yield "codec_loads", "lists of 4 billion in lists", b"\xdd\xff\xff\xff\xff" * 10**5
    yield "codec_loads", "tuples in tuples", apart((b"\x92" + ext(1, b"")) * 10**5 + b"\xc0")
    yield "codec_loads", "a scalar of 2 GiB", marked(14, "V1500000000", b"")
    yield "codec_loads", "an array of 2^60", marked(13, "<f8", [2**60], False)
    yield "codec_loads", "an array of nothing times 2^62", marked(13, "<f8", [0, 2**62], False)
    yield "codec_loads", "a dtype of 2 GiB", marked(13, [["a", "V1", [2**15, 2**15]]], [0], False)
    yield (
        "codec_loads",
        "a dtype of many fields",
        marked(13, [[f"f{n}", "V1"] for n in range(10**4)], [0], False),
    )
    yield "codec_loads", "a dimension each byte", marked(13, "<f8", [1] * 5000, False)
    yield "codec_loads", "a number of a million digits", ext(7, b"9" * 10**6)
    yield "codec_loads", "an exponent beyond all", ext(7, b"1E+999999999999999999")
    yield "codec_loads", "an int of a million bytes", ext(2, b"\x7f" * 10**6)
    yield (
        "codec_loads",
        "a zone that is a path",
        marked(11, 2026, 1, 1, 0, 0, 0, 0, 0, "../../../etc/passwd"),
    )
    yield (
        "codec_loads",
        "a zone that never ends",
        marked(11, 2026, 1, 1, 0, 0, 0, 0, 0, "a/" * 10**5),
    )
    yield "policy_parse", "a map of 4 billion", b"\xdf\xff\xff\xff\xff"
    yield "manifest_decode", "lists in lists", b"[" * 10**6
    yield "manifest_decode", "a number of a million digits", b'{"version":' + b"9" * 10**6 + b"}"
    yield "generation_head", "lists in lists", b"\x91" * 60000
    yield "notes", "JSON in JSON", b"[" * 2900


def _peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmPeak"))


def burst(seconds=SLOWEST, most=512):
    """Return the bombs that take too much memory (MiB) or time, each in a child with limits."""
    from tests.torture.parsers import attempt

    wrong, count = [], 0
    for name, what, data in bombs():
        count += 1
        pid = os.fork()
        if not pid:
            status = 1
            try:
                with open("/proc/self/statm") as file:
                    size = int(file.read().split()[0]) * resource.getpagesize()
                limit = (
                    size + 2**33
                )  # a MemoryError is forgiven by who reads: what was asked for is to be seen
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
                try:
                    attempt(name, data)
                    status = 2 if _peak() - size > most * 2**20 else 0
                except MemoryError:
                    status = 2
                except BaseException:
                    import traceback

                    traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            wrong.append(
                f"bomb: {name}: {what}: {'out of memory' if code == 2 else f'ended with {code}'}"
            )
    return count, wrong


def run(seconds, seed):
    from tests.torture.parsers import PARSERS

    warnings.simplefilter("ignore")
    began = time.monotonic()
    figures = {
        "parsers": len(PARSERS),
        "inputs": 0,
        "guided": importlib.util.find_spec("atheris") is not None,
    }
    count, wrong = burst()
    figures["bombs"] = count
    left = seconds - (time.monotonic() - began)
    each = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in PARSERS:
            share = max(3.0, left / len(PARSERS))
            tried, found = (
                guided(name, share, seed, folder)
                if figures["guided"]
                else changed(name, share, seed)
            )
            if not tried and not found:
                found = [f"{name}: nothing was tried"]
            each[name] = tried
            figures["inputs"] += tried
            wrong += found
    for text in wrong:
        print(f"VIOLATION {text}", flush=True)
    return figures | {"violations": len(wrong), "each": each}


def main():
    """The child: one parser, until libFuzzer is done."""
    import logging

    import atheris

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["efsstate"]):
        from tests.torture import parsers
    name = sys.argv[1]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], lambda data: parsers.attempt(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
