"""What it costs a hit in memory to be observed: by a listener, by EMF, by OpenTelemetry.

    python -m benchmarks.observed [--rounds 30]

The ways take turns in one process, so that a busy machine disturbs each alike. A time is the median
of the rounds, and the difference that of the pairs of one round.
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time

CALLS = 20_000


def per_call(function):
    """Return the nanoseconds of one call in a loop."""
    began = time.perf_counter_ns()
    for _ in range(CALLS):
        function(1)
    return (time.perf_counter_ns() - began) / CALLS


def listening():
    """Listen to all events; return how to stop."""
    from efsstate import on_event

    return on_event(lambda event: None)


def writing_lines():
    """Write EMF; return how to stop."""
    from efsstate import metrics

    return metrics.emf(stream=io.StringIO())


def recording():
    """Record with OpenTelemetry's SDK; return how to stop."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from efsstate import metrics

    return metrics.opentelemetry(MeterProvider([InMemoryMetricReader()]), TracerProvider())


def measure(rounds):
    """Print a row for each way to be observed."""
    from efsstate import cached

    double = cached(ttl="1h")(lambda number: 2 * number)
    double(1)
    ways = {"unobserved": lambda: lambda: None, "a listener": listening, "EMF": writing_lines}
    try:
        recording()()
        ways["OpenTelemetry"] = recording
    except ImportError:
        print("without the opentelemetry-sdk: no row for it")
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, begin in ways.items():
            stop = begin()
            times[name].append(per_call(double))
            stop()
    base = times["unobserved"]
    for name, values in times.items():
        more = statistics.median(value - plain for value, plain in zip(values, base, strict=True))
        print(f"{name}: {statistics.median(values):.0f} ns a hit in memory, {more:+.0f} ns")


def line_of_five_caches():
    """Print how long the line is of an invocation that uses five caches, a checkpoint, a model."""
    from efsstate import Cache, checkpoint, invocation, metrics, model, publish

    stream = io.StringIO()
    stop = metrics.emf(stream=stream, dimensions={"FunctionName": "a-function-of-some-service"})
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x" * 1000)
        file.flush()
        publish("m", file.name)
    with invocation():
        for name in "abcde":
            cache = Cache(f"cache-{name}")
            for number in range(100):
                cache.get_or_compute(number, lambda: "x")
                cache.get(number, fresh=True)
        with checkpoint("job") as job:
            for _ in range(30):
                job.save(1)
        model("m", load=lambda files: files.names)()
    stop()
    lines = stream.getvalue().splitlines()
    print(f"an invocation with five caches: {len(lines)} line of {len(lines[0])} bytes")


def main():
    """Measure on a local root."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as root:
        os.environ["EFSSTATE_ROOT"] = root
        import efsstate  # noqa: F401 - what follows is how many modules come with it

        own = [name for name in sys.modules if name.startswith("efsstate.metrics.")]
        print(f"modules of metrics before they are asked for: {len(own)}")
        measure(rounds)
        line_of_five_caches()


if __name__ == "__main__":
    main()
