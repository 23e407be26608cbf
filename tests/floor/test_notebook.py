"""Reports and statuses show as tables in a notebook, and no text of theirs is taken as HTML."""

import html.parser

import pytest

from efsstate import Cache, checkpoint, sweep

NAME = "<b>&'\""


class Cells(html.parser.HTMLParser):
    """The rows of a table, as pairs of texts, and the tags in it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag in ("th", "td", "caption"):
            self.texts.append("")

    def handle_data(self, data):
        self.texts[-1] += data


@pytest.mark.parametrize("kind", ["report", "info", "status", "progress"])
def test_a_table_has_every_field(tmp_path, kind):
    root = str(tmp_path)
    Cache(NAME, root=root).set("key", "value")
    with checkpoint(NAME, root=root) as job:
        job.save(1)
    if kind == "report":
        shown, wanted = sweep(root=root), {"kept": "1", "dry_run": "False", "removed": "0"}
    elif kind == "info":
        shown, wanted = Cache(NAME, root=root).info(), {"hits": "0", "maxsize": "67,108,864"}
    elif kind == "progress":
        with checkpoint("sharded", root=root).shards(2) as shards:
            next(iter(shards)).finish()
            shown = shards.progress()
        wanted = {"total": "2", "done": "1", "claimed": "0", "free": "1"}
    else:
        shown, wanted = job, {"name": NAME, "saves": "1", "finished": "False"}
    cells = Cells(shown._repr_html_())
    assert set(cells.tags) == {"table", "caption", "tr", "th", "td"}
    rows = dict(zip(cells.texts[1::2], cells.texts[2::2], strict=True))
    assert {name: rows[name] for name in wanted} == wanted
    assert NAME in cells.texts[0] or kind != "status"
