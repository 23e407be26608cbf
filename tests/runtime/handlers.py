"""The handlers that the tests of the harness run; each shows one thing."""

import os
import signal
import subprocess
import sys
import threading
import time

COUNT = 0
ticks = 0


def hello(event, context):
    global COUNT
    COUNT += 1
    print("hello from", context.aws_request_id)
    return {"event": event, "count": COUNT, "pid": os.getpid()}


def look(event, context):
    return {
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "remaining": context.get_remaining_time_in_millis(),
        "arn": context.invoked_function_arn,
        "memory": context.memory_limit_in_mb,
        "tenant": getattr(context, "tenant_id", None),
        "client_context": context.client_context.custom if context.client_context else None,
    }


def raises(event, context):
    raise LookupError("no such thing")


def leaves(event, context):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print("leaving", child.pid, flush=True)
    if event == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(7)


def stalls(event, context):
    """Takes too long, with a thread, a child process and a clean-up that must not run."""
    if event == "ok":
        return sorted(os.listdir(os.environ["TMPDIR"]))
    mark = os.path.join(os.environ["TMPDIR"], "mark")
    open(mark, "w").close()
    signal.signal(signal.SIGTERM, lambda *a: print("SIGTERM seen"))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    threading.Thread(target=lambda: time.sleep(60), daemon=True).start()
    print("child", child.pid)
    try:
        time.sleep(60)
    finally:
        print("cleaned up")


def ticking(event, context):
    """How often a background thread ran since the first call."""
    if event == "start":

        def tick():
            global ticks
            while True:
                ticks += 1
                time.sleep(0.01)

        threading.Thread(target=tick, daemon=True).start()
        time.sleep(0.05)
    return ticks


def meets(event, context):
    """Waits until `of` invocations are here together, whatever process they run in."""
    folder, of = event["folder"], event["of"]
    open(os.path.join(folder, str(event["number"])), "w").close()
    while len(os.listdir(folder)) < of:
        time.sleep(0.01)
    global COUNT
    COUNT += 1
    return {"pid": os.getpid(), "parent": os.getppid(), "count": COUNT, "tmp": os.environ["TMPDIR"]}


def worker(event, context):
    """In a Managed Instance: one of several processes is slow, or dies."""
    if event == "slow":
        time.sleep(2)
        open(os.path.join(os.environ["TMPDIR"], "went on"), "w").close()
    if event == "die":
        os._exit(3)
    return {"pid": os.getpid(), "files": sorted(os.listdir(os.environ["TMPDIR"]))}


def big(event, context):
    return "x" * event


def raw(event, context):
    return b"\x00\xff"


def nan(event, context):
    return {"value": float("nan")}


def opens(event, context):
    """Opens files until it may not, up to `event`."""
    files, message = [], None
    try:
        for _ in range(event):
            files.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 - it ends by an error
    except OSError as error:
        message = error.strerror
    for file in files:
        os.close(file)
    return {"count": len(files), "error": message}


def fails_first(event, context):
    """Fails `event` times."""
    global COUNT
    COUNT += 1
    if event >= COUNT:
        raise RuntimeError(f"attempt {COUNT}")
    return COUNT


def says_goodbye(event, context):
    def goodbye(*_):
        print("SIGTERM seen", flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, goodbye)


def takes(event, context):
    """Take `event["mb"]` MB, in a child of its own if "child", and hold them."""
    if event.get("child"):
        code = f"import time; x = b'x' * {event['mb'] << 20}; time.sleep({event['seconds']})"
        subprocess.run([sys.executable, "-c", code], check=False)
    else:
        held = b"x" * (event["mb"] << 20)
        time.sleep(event["seconds"])
        del held
    return event["mb"]


def maps(event, context):
    """Map a file of `event` MB and read it: its pages are no memory of the process's own."""
    import mmap

    path = os.path.join(os.environ["TMPDIR"], "mapped")
    with open(path, "wb") as file:
        file.writelines(b"m" * (1 << 20) for _ in range(event))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        total = sum(pages[at] for at in range(0, len(pages), 4096))
    time.sleep(0.2)
    return total


def fills(event, context):
    """Write `event` MB to TMPDIR; what happens, and how much room the process is told of."""
    import shutil

    folder = os.environ["TMPDIR"]
    room = shutil.disk_usage(folder).total >> 20
    try:
        with open(os.path.join(folder, "big"), "wb") as file:
            file.writelines(b"x" * (1 << 20) for _ in range(event))
    except OSError as error:
        return {"error": error.strerror, "room": room}
    return {"error": None, "room": room}
