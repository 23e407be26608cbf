"""CloudWatch's specification of the embedded metric format, and lines read back by it."""

import io
import json
import re
from collections import Counter

import jsonschema
import pytest

from efsstate import metrics

UNITS = (
    "Seconds|Microseconds|Milliseconds|Bytes|Kilobytes|Megabytes|Gigabytes|Terabytes|Bits|Kilobits"
    "|Megabits|Gigabits|Terabits|Percent|Count|Bytes/Second|Kilobytes/Second|Megabytes/Second"
    "|Gigabytes/Second|Terabytes/Second|Bits/Second|Kilobits/Second|Megabits/Second"
    "|Gigabits/Second|Terabits/Second|Count/Second|None"
)
TEXT = {"type": "string", "minLength": 1, "maxLength": 1024}
DIMENSION = {"type": "string", "minLength": 1, "maxLength": 250}
# The schema of "Specification: Embedded metric format", Amazon CloudWatch User Guide.
SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "properties": {
                            "Namespace": TEXT,
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {"type": "array", "maxItems": 30, "items": DIMENSION},
                            },
                            "Metrics": {
                                "type": "array",
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "properties": {
                                        "Name": TEXT,
                                        "Unit": {"type": "string", "pattern": f"^({UNITS})$"},
                                        "StorageResolution": {"enum": [1, 60]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}


def validate(line):
    """Return the metrics of one line, after the schema and the rules that it cannot state."""
    document = json.loads(line)
    jsonschema.validate(document, SCHEMA)
    assert len(line.encode()) < 2**20
    values = {}
    for directive in document["_aws"]["CloudWatchMetrics"]:
        for dimension in (name for names in directive["Dimensions"] for name in names):
            assert isinstance(document[dimension], str) and 0 < len(document[dimension]) <= 1024
        for metric in directive["Metrics"]:
            value = values[metric["Name"]] = document[metric["Name"]]
            numbers = value if isinstance(value, list) else [value]
            assert 0 < len(numbers) <= 100
            assert all(type(number) in (int, float) for number in numbers)
    return values


def emf_lines(text):
    """Return the lines of the format in a log."""
    return [line for line in text.splitlines() if re.match(r'\{"_aws":', line)]


def add_up(text):
    """Return the sums of the counts in a log, and the number of values of each other metric."""
    sums = Counter()
    for line in emf_lines(text):
        for name, value in validate(line).items():
            sums[name] += len(value) if isinstance(value, list) else value
    return sums


@pytest.fixture
def lines():
    """A stream that `emf` writes to, which is stopped after the test."""
    stream = io.StringIO()
    stops = []

    def start(**options):
        stops.append(metrics.emf(stream=stream, **options))
        return stream

    yield start
    for stop in stops:
        stop()
