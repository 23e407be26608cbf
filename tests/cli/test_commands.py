"""Each command: what it shows, what it changes, what it refuses."""

import os

import pytest

from efsstate import checkpoint
from efsstate.format import layout

from .conftest import DAY


def digests(tree, namespace):
    return [
        f"cache/{namespace}/{name[0]}/{name}"
        for _, _, names in os.walk(tree.full(f"cache/{namespace}"))
        for name in names
        if layout.is_digest(name)
    ]


def test_ls_shows_all_three_areas(shell):
    told = shell.json("ls")
    assert {row["area"] for row in told["rows"]} == {"cache", "checkpoints", "models"} and told[
        "matched"
    ] == 15 + 2 + 1
    states = {row["path"]: row["state"] for row in told["rows"]}
    assert sorted(states.values()).count("expired") == 5
    assert (
        states["checkpoints/import%2f2026-11-01"] == "finished"
        and states["checkpoints/backfill"] == "waiting"
    )


def test_ls_filters_sorts_and_limits(shell):
    told = shell.json(
        "ls",
        "cache/thumbnails",
        "--filter",
        "age>6.5d",
        "--filter",
        "state=expired",
        "--sort",
        "size",
        "--limit",
        "2",
    )
    assert told["matched"] == 5 and [round(row["age"] / DAY) for row in told["rows"]] == [11, 10]
    code, out, _ = shell("ls", "--limit", "1")
    assert code == 0 and "and 17 more" in out


def test_ls_takes_a_users_name_a_path_or_a_full_path(shell):
    for place in (
        "checkpoints/import/2026-11-01",
        "checkpoints/import%2f2026-11-01",
        shell.tree.full("checkpoints/import%2f2026-11-01"),
    ):
        assert [row["name"] for row in shell.json("ls", place)["rows"]] == ["import/2026-11-01"]


@pytest.mark.parametrize("place", ["/etc", "..", "../x", "cache/../../etc", "shared-data", "", "/"])
def test_places_outside_of_what_is_ours_are_refused(shell, place):
    for command in (["ls", place], ["show", place], ["rm", place, "-y"], ["verify", place]):
        code, out, err = shell(*command)
        assert code == 2 and out == "" and err


def test_stat_adds_up_by_namespace(shell):
    told = shell.json("stat")
    rows = {(row["area"], row["name"]): row for row in told["rows"]}
    row = rows["cache", "thumbnails"]
    assert row["entries"] == 12 and row["gone"] == 5 and round(row["oldest"] / DAY) == 11
    assert row["size"] == sum(
        os.path.getsize(shell.tree.full(name)) for name in digests(shell.tree, "thumbnails")
    )
    assert rows["models", "resnet50"]["size"] == 5000 and told["entries"] == 18
    code, out, _ = shell("stat")
    assert code == 0 and "█" in out and "thumbnails" in out and "the next sweep takes 5" in out
    assert len(shell.json("stat", "--filter", "area=models")["rows"]) == 1


def test_show_decodes_a_value(shell, tree):
    from efsstate import Cache

    with_values = Cache("plain", root=tree.path)
    with_values.set("k", {"a": (1, 2), "b": b"\x00"})
    (path,) = digests(tree, "plain")
    told = shell.json("show", path)
    assert told["codec"] == "msgpack" and told["value"]["a"] == [1, 2] and told["ttl"] is None
    code, out, _ = shell("show", path)
    assert code == 0 and "{'a': (1, 2), 'b': b'\\x00'}" in out


def test_show_of_a_pickle_runs_nothing(shell, tree):
    from efsstate.mount import store

    name = "a" * 48
    payload = b"cos\nsystem\n(S'touch " + os.fsencode(tree.path) + b"/pwned'\ntR."
    store.write(tree.mount, "cache/f/a", name, payload, codec="pickle")
    code, out, _ = shell("show", f"cache/f/a/{name}")
    assert code == 0 and "not decoded" in out and not tree.there("pwned")


def test_show_of_a_damaged_entry_says_so(shell, tree):
    path = digests(tree, "pricing")[0]
    with open(tree.full(path), "r+b") as file:
        file.seek(60)
        file.write(b"\xff")
    code, _, err = shell("show", path)
    assert code == 1 and "damaged" in err
    assert shell.json("show", path, code=1)["error"]["type"] == "CorruptEntryError"


def test_show_of_checkpoints_and_models(shell):
    assert shell.json("show", "checkpoints/import/2026-11-01")["state"] == "finished"
    (row,) = shell.json("ls", "models")["rows"]
    assert "model.bin" in str(shell.json("show", row["path"])["value"])


def test_show_of_more_than_one_entry_asks_for_one(shell, tree):
    (row,) = shell.json("ls", "models")["rows"]
    folders = [
        "cache",
        "cache/thumbnails",
        "cache/thumbnails/",
        "cache/thumbnails/" + digests(tree, "thumbnails")[0][17],
    ]
    for place in (
        *folders,
        "models",
        "models/resnet50",
        "models/resnet50/versions",
        row["path"] + "/model.bin",
    ):
        code, out, err = shell("show", place)
        assert (code, out) == (2, "") and "name one entry" in err and "damaged" not in err, place


def test_what_is_not_there_is_said_in_the_same_words_everywhere(shell, tree):
    digest = "cache/thumbnails/0/" + "0" * 48
    version = "models/resnet50/versions/nope"
    calls = [
        ["ls", "cache/nope"],
        ["stat", "cache/nope"],
        ["show", "cache/nope"],
        ["show", digest],
        ["show", version],
        ["show", "checkpoints/nope"],
    ]
    calls += [["rm", "cache/nope", "-y"], ["rm", "checkpoints/nope", "-y"], ["rm", digest, "-y"]]
    calls += [["checkpoint", "show", "nope"], ["checkpoint", "break", "nope", "-y"]]
    for call in calls:
        code, out, err = shell(*call)
        place = call[1] if "/" in call[1] else "checkpoints/nope"
        assert (code, out, err) == (
            3,
            "",
            f"efsstate: {tree.full(place)}: there is nothing of this name\n",
        ), call
    assert not tree.there("checkpoints/nope")


def test_gc_needs_a_yes_and_a_dry_run_none(shell):
    code, out, err = shell("gc")
    assert code == 2 and "5 files" in err and "-y" in err and shell.tree.entries("thumbnails") == 12
    assert shell.json("gc", "--dry-run")["removed"] == 5 and shell.tree.entries("thumbnails") == 12
    told = shell.json("gc", "-y")
    assert (
        told["removed"] == 5
        and told["reasons"] == {"expired": 5}
        and shell.tree.entries("thumbnails") == 7
    )
    assert shell("gc")[0] == 0, "nothing to remove: nothing to ask"


def test_gc_takes_the_sweeps_options(shell):
    assert shell.json("gc", "-y", "--older-than", "2d")["reasons"] == {"old": 10}
    assert shell.tree.entries("thumbnails") == 2
    assert shell.json("gc", "-y", "--max-entries", "1")["kept"] == 1
    assert shell.json("gc", "-y", "--budget", "0")["finished"] is False
    assert (
        shell("gc", "-y", "--older-than", "soon")[0] == 2
        and shell("gc", "-y", "--max-bytes", "x")[0] == 2
    )


def test_verify_finds_damage_and_repairs_cache_entries_alone(shell, tree):
    assert shell("verify")[0] == 0
    victim = digests(tree, "pricing")[0]
    generation = next(
        f"checkpoints/backfill/{name}"
        for name in os.listdir(tree.full("checkpoints/backfill"))
        if layout.parse_claim(name) and layout.parse_claim(name)[0] == "g"
    )
    for path in (victim, generation):
        with open(tree.full(path), "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
    told = shell.json("verify", code=1)
    assert {one["where"] for one in told["findings"]} == {
        tree.full(victim),
        tree.full(generation),
    } and told["repaired"] == 0
    assert shell("verify", "--repair")[0] == 2, "without a terminal it needs -y"
    assert shell("verify", "--repair", "--dry-run")[0] == 1 and tree.there(victim)
    told = shell.json("verify", "--repair", "-y", code=1)
    assert told["repaired"] == 1 and not tree.there(victim) and tree.there(generation)
    assert shell("verify", "cache")[0] == 0


def test_verify_reads_models(shell, tree):
    (row,) = shell.json("ls", "models")["rows"]
    file = next(
        f"{where}/{name}"
        for where, _, names in os.walk(tree.full(row["path"]))
        for name in names
        if name == "model.bin"
    )
    os.chmod(file, 0o600)
    with open(file, "r+b") as opened:
        opened.write(b"X")
    told = shell.json("verify", "models", code=1)
    assert len(told["findings"]) == 1 and "resnet50" in told["findings"][0]["where"]


def test_verify_counts_the_files_of_models_and_their_bytes(shell, tree, tmp_path):
    from efsstate import publish

    source = tmp_path / "two"
    source.mkdir()
    (source / "a").write_bytes(b"a" * 70_000)
    (source / "b").write_bytes(b"b" * 30_000)
    publish("shop/two", source, root=tree.path)
    told = shell.json("verify", "models/shop/two")
    assert (told["checked"], told["size"]) == (2, 100_000)
    assert "2 files, 97.7 KiB checked: 0 findings" in shell("verify", "models/shop/two")[1]
    told = shell.json("verify", "models")
    assert (told["checked"], told["size"]) == (3, 105_000)


def test_rm_walks_into_no_strangers_folder(shell, tree):
    """A folder `abc` in a namespace is not one of its sixteen (I33)."""
    notes = tree.file(f"cache/thumbnails/abc/{'a' * 48}")
    told = shell.json("rm", "cache/thumbnails", "-y")
    assert told["foreign"] == [tree.full("cache/thumbnails/abc")] and tree.there(notes)


def test_rm_of_a_namespace_leaves_what_is_not_ours(shell, tree):
    tree.file("cache/thumbnails/notes.txt")
    code, _, err = shell("rm", "cache/thumbnails")
    assert code == 2 and "13 files" in err and "-y" in err
    assert shell.json("rm", "cache/thumbnails", "--dry-run")["files"] == 13
    told = shell.json("rm", "cache/thumbnails", "cache/pricing", "-y")
    assert told["removed"] == 13 + 4 and told["left"] == [tree.full("cache/thumbnails")]
    assert told["foreign"] == [tree.full("cache/thumbnails/notes.txt")]
    assert tree.there("cache/thumbnails/notes.txt") and not tree.there("cache/pricing")
    assert shell("rm", "cache/pricing", "-y")[0] == 3


def test_rm_of_one_entry(shell, tree):
    first, *rest = digests(tree, "pricing")
    assert shell.json("rm", first, "-y")["removed"] == 1 and digests(tree, "pricing") == rest


def test_rm_of_a_checkpoint_and_of_one_that_is_claimed(shell, tree):
    with checkpoint("backfill", root=tree.path) as job:
        code, _, err = shell("rm", "checkpoints/backfill", "-y")
        assert code == 3 and "claimed" in err and "checkpoint break backfill" in err
        job.save(1)
    assert shell("rm", "checkpoints/backfill", "-y")[0] == 0 and not tree.there(
        "checkpoints/backfill"
    )
    assert checkpoint("backfill", root=tree.path).load("none") == "none"


@pytest.mark.parametrize(
    "place",
    [
        "models/resnet50",
        "cache",
        "checkpoints",
        "cache/thumbnails/POLICY",
        "checkpoints/backfill/LOCK",
    ],
)
def test_rm_refuses_what_is_too_much_or_too_little(shell, place):
    before = sorted(os.walk(shell.tree.path))
    assert shell("rm", place, "-y")[0] == 2 and sorted(os.walk(shell.tree.path)) == before


def test_rm_follows_no_link(shell, tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ("a" * 48)).write_bytes(b"x")
    os.makedirs(tree.full("cache/linked"))
    os.symlink(outside, tree.full("cache/linked/a"))
    os.symlink(outside, tree.full("cache/all"))
    shell("rm", "cache/linked", "-y")
    shell("rm", "cache/all", "-y")
    assert (outside / ("a" * 48)).exists()


def test_checkpoint_ls_show_and_break(shell, tree):
    told = shell.json("checkpoint", "ls", "--filter", "state=finished")
    assert [row["name"] for row in told["rows"]] == ["import/2026-11-01"] and told["rows"][0][
        "items"
    ] == 10
    with checkpoint("backfill", root=tree.path) as job:
        assert shell.json("checkpoint", "show", "backfill")["state"] == "claimed"
        code, _, err = shell("checkpoint", "break", "backfill")
        assert code == 2 and "held by" in err
        job.save(1)
        from efsstate import ClaimLost

        told = shell.json("checkpoint", "break", "backfill", "-y")
        assert told["broken"] and told["owner"]["pid"] == os.getpid()
        with pytest.raises(ClaimLost):
            job.save(2)
    assert shell("checkpoint", "show", "nothing")[0] == 3


def test_checkpoint_break_of_what_nobody_holds_says_so_and_fences_all_the_same(shell, tree):
    before = shell.json("checkpoint", "show", "backfill")["epoch"]
    assert (
        "which nobody holds (the last was a process on "
        in shell("checkpoint", "break", "backfill")[2]
    )
    code, out, _ = shell("checkpoint", "break", "backfill", "-y")
    assert (
        code == 0
        and out.startswith("nobody held the claim of backfill (the last was a process on ")
        and "broke" not in out
    )
    assert shell.json("checkpoint", "show", "backfill")["epoch"] == before + 1
    assert shell.json("checkpoint", "break", "backfill", "-y")["held"] is False
    with checkpoint("backfill", root=tree.path):
        assert shell("checkpoint", "break", "backfill", "-y")[1].startswith(
            "broke the claim of backfill, held by a process on "
        )
    os.mkdir(tree.full("checkpoints/blank"))
    assert "nobody ever claimed it" in shell("checkpoint", "break", "blank", "-y")[1]


def test_a_checkpoint_whose_name_is_cut_on_the_disk_is_listed(shell, tree):
    with checkpoint("x" * 300, root=tree.path) as job:
        job.save(1)
    (row,) = shell.json("checkpoint", "ls", "--filter", "name~xxx")["rows"]
    assert row["position"] == "?" and row["size"] > 100
    assert shell("ls", "checkpoints")[0] == 0


def test_an_empty_root_is_no_error(tmp_path, capfd):
    from efsstate.cli import app

    for command in ("ls", "stat", "verify", "gc", "checkpoint ls"):
        assert app.run([*command.split(), "--root", str(tmp_path)]) == 0, command
    capfd.readouterr()
    assert os.listdir(tmp_path) == []
