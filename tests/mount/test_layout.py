"""Names on the disk: every user's name has a component of its own, inside its folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efsstate.format import layout

HARD = [
    "..",
    ".",
    "/",
    "a/b",
    "../../etc/passwd",
    "a\\b",
    ".nfs0001",
    ".tmp-x",
    "~",
    "a~b",
    "%41",
    "A",
    "a",
    "İ",
    "ß",
    "ẞ",
    "e\u0301",
    "é",
    " ",
    "\n",
    "x" * 300,
    "x" * 301,
    "X" * 160,
    "日本" * 100,
    "CON",
    "-rf",
]


@given(
    st.lists(st.text(min_size=1, max_size=300).filter(lambda s: "\0" not in s), max_size=8).map(
        lambda many: [*many, *HARD]
    )
)
def test_names_stay_apart_where_case_is_folded_and_stay_inside(names):
    seen = {}
    for name in names:
        try:
            safe = layout.component(name)
        except ValueError:
            assert any("\ud800" <= c <= "\udfff" for c in name)
            continue
        assert 0 < len(safe.encode()) <= 200 and safe.isascii()
        assert "/" not in safe and "\0" not in safe and safe[0] != "."
        assert seen.setdefault(safe.lower(), name) == name


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_names_that_cannot_be_stored_are_refused(name):
    with pytest.raises(ValueError, match="can't be used"):
        layout.component(name)


@given(
    st.text(min_size=1, max_size=40).filter(
        lambda s: "\0" not in s and s == s.lower() and s.isprintable()
    )
)
def test_short_names_can_be_read_back(name):
    assert layout.readable(layout.component(name)) == name


@pytest.mark.parametrize("name", ["resnet50", "team/resnet-50", "v1.2/Model_x", "my-model.pth"])
def test_model_names_keep_their_look(name):
    safe = layout.model_component(name)
    assert safe == name.replace("/", "--") and layout.model_name(safe) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "a/../b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a--b",
        "a-/b",
        "a/-b",
        "-a",
        "a b",
        "a\0",
        "é",
        "x" * 161,
        None,
        3,
    ],
)
def test_other_model_names_are_refused(name):
    with pytest.raises((ValueError, TypeError), match="can't be used"):
        layout.model_component(name)


@given(st.lists(st.from_regex(r"[A-Za-z0-9._/-]{1,12}", fullmatch=True), max_size=12))
def test_model_names_stay_apart(names):
    seen = {}
    for name in names:
        try:
            safe = layout.model_component(name)
        except ValueError:
            continue
        assert "/" not in safe and safe[0] != "."
        assert seen.setdefault(safe, name) == name


def test_kinds_of_files_are_told_apart():
    digest = "0a" * layout.DIGEST_BYTES
    assert (
        layout.is_digest(digest)
        and not layout.is_digest(digest.upper())
        and not layout.is_digest(digest[1:])
    )
    draft = layout.TEMPORARY + digest + 16 * "a"
    assert layout.drafts(digest, [draft, "POLICY"]) == [draft] and layout.is_temporary(draft)
    assert layout.is_temporary(".tmp-" + 24 * "a")
    for name in (".tmp-1", "tmp-1", ".tmp-report.csv", ".tmp-" + 23 * "a", ".tmp-" + 24 * "A"):
        assert not layout.is_temporary(name)
        assert not layout.is_being_published(name)
    assert not layout.is_temporary(".tmp-" + 32 * "a")
    for name in (32 * "a", 32 * "a" + ".lock", "gone-v1-" + 8 * "a", 24 * "a"):
        assert layout.is_being_published(".tmp-" + name)
    assert layout.entry_folder("ns", digest) in layout.entry_folders("ns")
