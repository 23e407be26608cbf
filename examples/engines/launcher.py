"""The part that the examples share: a worker's part of a job, and the command line."""

import argparse
import importlib
import json


def one_part(function, job):
    """Run one worker's part; return True if the job is finished then."""
    from efsstate.workers import run_round

    module, _, name = function.partition(":")
    return run_round(getattr(importlib.import_module(module), name), job).finished


def arguments(description):
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("function", metavar="module:function", help="the job's work")
    parser.add_argument("--input", dest="job", type=json.loads, default=None, metavar="JSON")
    parser.add_argument("--workers", type=int, default=2, help="how many work at a time")
    parser.add_argument(
        "--engine", type=json.loads, default={}, metavar="JSON", help="settings of the engine"
    )
    return parser.parse_args()
