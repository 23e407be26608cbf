"""Write docs/guarantees-figures.md from what `python -m tests.torture` left in torture.json.

    python -m tests.torture.figures [FILE [AGAIN …]]

AGAIN: what a run of some parts alone (`--only`) left, after what they had found was mended; the
page says so.
"""

import json
import os
import sys
import textwrap

from tests.torture.__main__ import PARTS

PAGE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    "docs",
    "guarantees-figures.md",
)
# Of each part: what went wrong on purpose, and what was done meanwhile, in words with the figures'
# names.
TRIED = {
    "power": (("{kernels_killed} kernels killed, {images} images of a "
              "disk"), "{acknowledged} acknowledged operations looked for"),
    "load": ("", ("{operations} by {processes} processes on two clients, {managed_operations} by "
                 "a Managed Instance's {managed_processes}")),
    "partitions": ("{faults} cuts, freezes, kills and restarts", "{operations}"),
    "syscalls": (("{faults} of {points} possible ones: {kills} kills, {errors} errors, "
                 "{transfers} short transfers, failing closes and full "
                 "files"), "of {operations} kinds"),
    "fuzz": ("{inputs} inputs, {bombs} bombs", "{parsers} parsers"),
    "hostile": (("{planted} plants, {huge_files} files of a TiB, {names} strange names, {edits} "
                "edits by an attacker without the "
                "key"), "{reads} reads, {misses} misses, {errors} clear errors under attack"),
    "clocks": ("{jumps} jumps", "{operations}, and {updates} updates, by {clients} clients"),
    "interrupts": (
        "{alarms_met} alarms, {forks_met} forks",
        "{operations} kinds; {alarms_lost} descriptors lost as a file was opened to be read",
    ),
    "growth": ("", "{operations} in {states} states"),
    "budgets": ("", ("sweeps of {count} namespaces, shards, models, datasets and parts; the "
                "longest {longest_s} s")),
    "model": ("", "{states} states, {steps} steps"),
    "mutation": ("{mutations} of {of} measures switched off", "{noticed} noticed"),
}  # fmt: skip


class Said(dict):
    """Numbers with their commas; "?" for what a part has not told."""

    def __missing__(self, name):
        return "?"


def number(value):
    return f"{value:,}" if isinstance(value, int) else str(value)


def rows(head, lines):
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for line in lines:
        yield f"| {' | '.join(number(one) for one in line)} |"
    yield ""


def summary(parts):
    for name in PARTS:
        figures = parts.get(name)
        if figures is None or "skipped" in figures or "error" in figures:
            said = "not run" if figures is None else figures.get("skipped") or figures["error"]
            yield [f"`{name}`", PARTS[name], said, "", figures["violations"] if figures else "", ""]
            continue
        told = Said({key: number(value) for key, value in figures.items()})
        faults, done = (text.format_map(told) for text in TRIED[name])
        yield [
            f"`{name}`",
            PARTS[name],
            faults,
            done,
            figures["violations"],
            round(figures["seconds"] / 60, 1),
        ]


def power(own):
    yield "## Power"
    yield ""
    yield from rows(
        ["", "times", "acknowledged before", "and"],
        [
            [
                ("the server's kernel killed, its disk made to forget, booted again"),
                own["server_kills"],
                own["acknowledged_server"],
                f"{own['sectors_lost']:,} sectors lost or torn, between {own['flushes']:,} flushes",
            ],
            ["its disk as a cut at another moment would leave it", own["images"], "", ""],
            [
                ("a client's kernel killed, in a machine of its own"),
                own["client_kills"],
                own["acknowledged_clients"],
                "",
            ],
            [
                ("*bug on purpose:* an export with `async`"),
                1,
                "",
                (f"{own['planted_early_acknowledgement_found']} violations, so losses are seen"),
            ],
        ],
    )
    seconds = own["seconds_per_kill"]
    yield f"{seconds} s for a kill, its boot and its judgement, two labs side by side."
    yield ""


def partitions(own):
    yield "## Partitions"
    yield ""
    yield from rows(
        ["fault", "times"],
        [
            [name.removeprefix("fault_").replace("_", " "), n]
            for name, n in own.items()
            if name.startswith("fault_")
        ],
    )
    yield from rows(
        ["operation", "times"],
        [[name.removeprefix("op_"), n] for name, n in own.items() if name.startswith("op_")],
    )
    yield (
        f"Claims lost, and told so: {own['claims_lost']}; refused: {own['claims_refused']}. "
        f"Errors near faults: {own['errors_near_faults']}; computations of one key twice,"
        f" near faults: {own['duplicate_computations_near_faults']}. The longest that a value "
        f"was seen after a newer one was acknowledged: {own['longest_staleness_s']} s (promised: "
        "60 s)."
        " Away from faults the longest operation took "
        f"{own['longest_operation_away_from_faults_s']} s. *Bug on purpose:* a save that does "
        f"not look for a higher epoch: {own['planted_lack_of_fencing_found']} violations, so it "
        "is seen."
    )
    yield ""


def load(own):
    yield "## Load"
    yield ""
    lines = {
        "processes": "processes",
        "operations": "operations",
        "most descriptors of a process": "most_descriptors",
        "growth of descriptors, most (without the folders kept open, at most "
        "256)": "most_growth_descriptors",
        "memory of its own, median, KiB": "median_kib",
        "growth, median, KiB": "median_growth_kib",
        "growth, most, KiB": "most_growth_kib",
        "one lock, wanted by all the time: processes": "lock_waiters",
        "turns": "lock_turns",
        "wait, median, s": "lock_wait_median_s",
        "wait, 95th of 100, s": "lock_wait_p95_s",
        "wait, longest, s": "lock_wait_longest_s",
        "turns of a process, least": "lock_turns_least",
        "turns of a process, median": "lock_turns_median",
        "turns of a process, most": "lock_turns_most",
        "fairness (1: all alike)": "lock_fairness",
    }
    yield from rows(
        ["", "two clients, NFS", "a Managed Instance, local folder"],
        [[text, own.get(name, ""), own.get(f"managed_{name}", "")] for text, name in lines.items()],
    )
    times = own["planted_leak_found"]
    yield f"*Bug on purpose:* a descriptor and 100 kB left by each read: found, {times} times."
    yield ""


def model(own):
    yield "## The checkpoints' protocol, explored"
    yield ""
    yield from rows(
        ["space, each exhausted", "states", "steps", "violations"],
        [[name, *numbers] for name, numbers in own["each_space"].items()],
    )
    yield from rows(
        ["without", "violation found"], [[name, *found] for name, found in own["each_rule"].items()]
    )


def growth(own):
    yield "## Growth"
    yield ""
    yield "Before and after so many operations in one state. Nothing may grow with their number."
    yield ""
    keys = ("descriptors", "files", "calls")
    head = ["state", "times", *(f"{key}: before, after" for key in keys), "heap, KiB more"]
    yield from rows(
        head,
        [
            [
                name.replace("_", " "),
                row["times"],
                *(f"{row['before'][key]:,}, {row['after'][key]:,}" for key in keys),
                (row["after"]["heap"] - row["before"]["heap"]) >> 10,
            ]
            for name, row in own["rows"].items()
        ],
    )


def budgets(own):
    yield "## Budgets in time"
    yield ""
    yield (
        "Sweeps with `budget=0.2` until everything was swept; each call must make progress. Seconds"
        " are of the processor, but for the dry run's."
    )
    yield ""
    yield from rows(
        ["", "count", "calls", "longest, s", "swept", "removed", "whole dry run, s"],
        [
            [
                kind,
                *(row[key] for key in ("count", "calls", "longest", "folders", "removed", "whole")),
            ]
            for kind, row in own["rows"].items()
        ],
    )


def mutation(own):
    yield "## Mutation"
    yield ""
    yield from rows(
        ["measure", "module", "noticed by"],
        [[name, f"`{module}`", f"`{by}`"] for name, (module, by) in own["rows"].items()],
    )


def page(found):
    about, parts = found["machine"], found["parts"]
    yield "# The figures of the last whole run of `make torture`"
    yield ""
    yield "What is tried, and what may happen, is in [guarantees](guarantees.md). Written by"
    seed = about["seed"]
    yield f"`python -m tests.torture.figures` after `python -m tests.torture --seed {seed}`."
    yield ""
    yield (
        f"{about['date']}, commit `{about['commit']}`, {about['took_minutes']} minutes; "
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux "
        f"{about['kernel']},"
        f" Python {about['python']}. **Violations: "
        f"{sum(own['violations'] for own in parts.values())}.**"
    )
    for name, (before, again) in found["again"].items():
        yield ""
        yield (
            f"`{name}` had found {before} {'violation' if before == 1 else 'violations'}; what "
            f"it found was mended, and it was run again: {again['date']}, commit "
            f"`{again['commit']}`,"
            f" seed {again['seed']}. Its figures are of that run."
        )
    yield ""
    yield from rows(["part", "", "faults", "operations", "violations", "minutes"], summary(parts))
    for tell in (power, partitions, load, growth, budgets, model, mutation):
        own = parts.get(tell.__name__)
        if own and not {"skipped", "error"} & set(own):
            yield from tell(own)


def written(lines):
    """Return the page's text: prose in lines of 100 columns, tables as they are."""
    whole = [line if line.startswith("|") else textwrap.fill(line, 100) for line in lines]
    return "\n".join(whole).rstrip("\n").replace(" |  |", " | |") + "\n"


def main(path="torture.json", *again):
    with open(path) as file:
        found = json.load(file) | {"again": {}}
    for one in again:
        with open(one) as file:
            later = json.load(file)
        for name, figures in later["parts"].items():
            found["again"][name] = (found["parts"][name]["violations"], later["machine"])
            found["parts"][name] = figures
    with open(PAGE, "w") as file:
        file.write(written(page(found)))
    print(PAGE)


if __name__ == "__main__":
    main(*sys.argv[1:])
