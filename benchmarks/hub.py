"""Publish from a hub beside the client's own download: `python -m benchmarks.hub [ROOT]`.

A hub on loopback (that of the tests) serves a repository of one large and two small files. The peer
is huggingface_hub's `snapshot_download` into a folder below the same root, which compares no
digests; `cp` copies the snapshot once more. Ratios are of the medians of one run.
"""

import argparse
import os
import shutil
import signal
import statistics
import tempfile
import time

SIZE, ROUNDS = 256 << 20, 3  # a model is large: less tells of the first requests alone


def seconds_of(work, *arguments):
    """Return how long the work takes."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def serve(files):
    """Serve a repository of the files in a process of its own; return its address and id."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        from tests.modelstore.hub_server import Hub, Repository

        hub = Hub()
        hub.repositories["org/net"] = Repository(files)
        os.write(writing, hub.url.encode())
        while True:
            signal.pause()
    return os.read(reading, 100).decode(), pid


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub", description=__doc__)
    parser.add_argument("root", nargs="?", default="/dev/shm", help="a folder to write below")
    parent = parser.parse_args().root

    files = {"model.safetensors": os.urandom(SIZE), "config.json": b"{}", "tokenizer.json": b"[]"}
    url, server = serve(files)
    os.environ |= {"HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    folder = tempfile.mkdtemp(dir=parent)
    os.environ["HF_HOME"] = f"{folder}/home"
    import huggingface_hub
    from huggingface_hub import constants, file_download

    from efsstate import publish

    constants.ENDPOINT = url
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # releases before 1.0 have a copy of it
        module.HUGGINGFACE_CO_URL_TEMPLATE = template

    def download(target):
        huggingface_hub.snapshot_download("org/net", local_dir=target)

    times = {"snapshot_download": [], "publish(hub=)": [], "cp": [], "publish(folder)": []}
    for number in range(ROUNDS):
        place = f"{folder}/{number}"
        os.mkdir(place)
        snapshot = f"{place}/snapshot"
        times["snapshot_download"].append(seconds_of(download, snapshot))
        shutil.rmtree(f"{snapshot}/.cache", ignore_errors=True)
        ours = f"{place}/ours"
        os.mkdir(ours)
        times["publish(hub=)"].append(
            seconds_of(lambda root: publish("net", hub="org/net", root=root), ours)
        )
        times["cp"].append(seconds_of(shutil.copytree, snapshot, f"{place}/copy"))
        os.mkdir(f"{place}/third")
        times["publish(folder)"].append(
            seconds_of(
                lambda source, root: publish("net", source, root=root), snapshot, f"{place}/third"
            )
        )
        shutil.rmtree(place)
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, median in medians.items():
        spread = f"{min(times[name]):.2f} to {max(times[name]):.2f} s"
        print(f"{name:18} {median:6.2f} s  {SIZE / median / 2**20:5.0f} MiB/s  ({spread})")
    ratio = medians["publish(hub=)"] / medians["snapshot_download"]
    print(f"publish(hub=) takes {ratio:.2f} x snapshot_download, digests compared")
    ratio = medians["publish(folder)"] / medians["cp"]
    print(f"publish(folder) takes {ratio:.2f} x cp, digests computed")
    shutil.rmtree(folder)
    os.kill(server, signal.SIGTERM)
    os.waitpid(server, 0)


if __name__ == "__main__":
    main()
