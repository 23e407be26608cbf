"""Draw docs/img/dashboard.svg: the dashboard and the alarms of the stack, from its template.

    python scripts/dashboard.py [docs/img/dashboard.svg]

A widget shows its title, its series with their statistic, and its period. There are no curves,
because no figures of an account are at hand.
"""

import json
import os
import re
import sys
from html import escape

import yaml

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.path.join(HERE, "docs", "img", "dashboard.svg")
COLUMN, ROW, GAP, LINE = 42, 27, 6, 15  # pixels; a dashboard has 24 columns
COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#7c3aed", "#db2777", "#0891b2")
TEXT, QUIET, EDGE = "#0f172a", "#64748b", "#cbd5e1"
FAMILY = "system-ui, Segoe UI, Helvetica, Arial, sans-serif"


class Loader(yaml.SafeLoader):
    """YAML of CloudFormation, whose functions are kept as their arguments."""


def _construct(loader, _suffix, node):
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


Loader.add_multi_constructor("!", _construct)


def resources():
    """Return the template's resources."""
    from efsstate.deploy import template

    return yaml.load(template.render("cloudformation"), Loader)["Resources"]


def widgets(stack):
    """Return the dashboard's widgets, with the names of the stack's parts for their values."""
    body, values = stack["Dashboard"]["Properties"]["DashboardBody"]
    for name in ("BatchMetric", "BatchStateMetrics"):
        body = body.replace(f"${{{name}}}", values[name][1])
    return json.loads(re.sub(r"\$\{(?:AWS::)?(\w+)\}", r"\1", body))["widgets"]


def series(widget):
    """Return the text of each series of a widget that is shown."""
    properties, texts = widget["properties"], []
    for metric in properties["metrics"]:
        names, options = metric, {}
        if isinstance(metric[-1], dict):
            *names, options = metric
        if options.get("visible") is False:
            continue
        if "expression" in options:
            texts.append(f"{options['label']} = {options['expression']}")
            continue
        stat = options.get("stat", properties.get("stat"))
        texts.append(f"{names[1]} of {names[-1]} ({stat.lower()})")
    return texts


def wrapped(text, pixels, size):
    """Return the lines of a text that fit into a width."""
    longest, lines, line = int(pixels / (size * 0.54)), [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > longest:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def words(x, y, text, *, size=11, fill=TEXT, weight=400):
    """Return a line of text."""
    return (
        f'<text x="{x}" y="{y}" font-family="{FAMILY}" font-size="{size}" fill="{fill}"'
        f' font-weight="{weight}">{escape(text)}</text>'
    )


def box(x, y, width, height):
    """Return a frame."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="#ffffff"'
        f' stroke="{EDGE}"/>'
    )


def draw_widget(widget):
    """Yield the shapes of one widget."""
    x, y = GAP + widget["x"] * COLUMN, GAP + widget["y"] * ROW
    width, height = widget["width"] * COLUMN - GAP, widget["height"] * ROW - GAP
    properties = widget["properties"]
    yield box(x, y, width, height)
    line = y + 19
    for text in wrapped(properties["title"], width - 20, 14):
        yield words(x + 10, line, text, size=12.5, weight=600)
        line += LINE
    line += 3
    for text, colour in zip(series(widget), COLOURS, strict=False):
        yield f'<rect x="{x + 10}" y="{line - 8}" width="9" height="9" fill="{colour}"/>'
        for part in wrapped(text, width - 36, 11):
            yield words(x + 25, line, part)
            line += LINE
    period = f"every {properties['period']} s"
    yield words(x + 10, y + height - 8, period, size=10, fill=QUIET)


def draw_alarms(stack, y):
    """Return the shapes of the alarms' list, and the height below it."""
    shapes = [words(GAP + 4, y + 20, "Alarms", size=14, weight=600)]
    y += 28
    for name, resource in stack.items():
        if resource["Type"] != "AWS::CloudWatch::Alarm":
            continue
        lines = wrapped(resource["Properties"]["AlarmDescription"], 24 * COLUMN - 230, 11)
        shapes.append(box(GAP, y, 24 * COLUMN - GAP, len(lines) * LINE + 9))
        shapes.append(words(GAP + 10, y + 16, name, weight=600))
        for text in lines:
            y += LINE
            shapes.append(words(GAP + 210, y + 1, text))
        y += 13
    return shapes, y + GAP


def svg():
    """Return the whole picture."""
    stack = resources()
    drawn = widgets(stack)
    shapes = [shape for widget in drawn for shape in draw_widget(widget)]
    below = GAP + max(widget["y"] + widget["height"] for widget in drawn) * ROW
    alarms, height = draw_alarms(stack, below)
    width = 24 * COLUMN + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img">'
    )
    ground = f'<rect width="{width}" height="{height}" fill="#f1f5f9"/>'
    return "\n".join([head, ground, *shapes, *alarms, "</svg>\n"])


def main(target):
    """Write the picture."""
    with open(target, "w", encoding="utf-8") as file:
        file.write(svg())


if __name__ == "__main__":
    sys.path.insert(0, os.path.join(HERE, "src"))
    main(sys.argv[1] if len(sys.argv) > 1 else TARGET)
