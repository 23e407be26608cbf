"""Each command: what it shows, what it changes, what it refuses."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from efsstate import ClaimLost, CorruptEntryError, checkpoint, dataset
from efsstate.checkpoints.checkpoint import Checkpoint
from efsstate.checkpoints.newest import StateFolder
from efsstate.format import layout

from .conftest import DAY


def digests(tree, namespace):
    return [
        f"cache/{namespace}/{name[0]}/{name}"
        for _, _, names in os.walk(tree.full(f"cache/{namespace}"))
        for name in names
        if layout.is_digest(name)
    ]


def test_ls_has_a_line_for_each_cache_job_model_and_dataset(shell):
    told = shell.json("ls")
    rows = {row["path"]: row for row in told["rows"]}
    assert told["matched"] == len(rows) == 2 + 2 + 1 + 1
    assert {path: row["state"] for path, row in rows.items()} == {
        "cache/pricing": "live",
        "cache/thumbnails": "5 to go",
        "checkpoints/backfill": "waiting",
        "checkpoints/import%2f2026-11-01": "finished",
        "models/resnet50": "active",
        "datasets/reviews--raw": "kept",
    }
    cache = rows["cache/thumbnails"]
    assert cache["items"] == 12 and cache["age"] < DAY / 2, "the age of the entry that is youngest"
    assert cache["size"] == sum(row["size"] for row in shell.json("ls", cache["path"])["rows"])
    assert [row["path"] for row in shell.json("ls", "cache")["rows"]] == [
        "cache/pricing",
        "cache/thumbnails",
    ]


def test_ls_of_a_checkpoint_that_is_not_there_is_exit_code_3(shell):
    code, _, err = shell("ls", "checkpoints/TYPO")
    assert code == 3 and "there is nothing of this name" in err


def test_ls_and_stat_count_the_parts_of_a_dataset(shell):
    dataset("counted", root=shell.tree.path).add(b"1")
    dataset("counted", root=shell.tree.path).add(b"2")
    rows = {row["path"]: row for row in shell.json("ls")["rows"]}
    assert rows["datasets/counted"]["items"] == 2


def test_a_line_break_in_a_name_keeps_its_row_in_one_line(shell):
    with checkpoint("first\nsecond\tthird", root=shell.tree.path):
        pass
    (line,) = [line for line in shell("ls")[1].splitlines() if "first" in line]
    assert "first\N{REPLACEMENT CHARACTER}second third" in line


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
    assert code == 0 and "and 5 more" in out
    assert [row["name"] for row in shell.json("ls", "--filter", "items>11")["rows"]] == [
        "thumbnails"
    ]


def test_ls_of_a_job_lists_its_shards_and_of_a_dataset_its_parts(shell, tree):
    with checkpoint("t", root=tree.path).shards(3) as shards:
        for shard in shards:
            for number in shard.resume(range(2)):
                shard.state = number
    rows = shell.json("ls", "checkpoints/t")["rows"]
    assert [row["name"] for row in rows] == ["t", "t[0]", "t[1]", "t[2]"]
    assert [row["items"] for row in rows] == [6, 2, 2, 2]
    assert [row["name"] for row in shell.json("ls", "checkpoints/t[1]")["rows"]] == ["t[1]"]
    (row,) = shell.json("ls", "--filter", "name=t")["rows"]
    assert (row["state"], row["items"]) == ("finished", 6)
    assert shell("ls", "checkpoints/t/s7")[0] == 3
    raw = dataset("reviews/raw", root=tree.path)
    raw.freeze("run/2")
    rows = shell.json("ls", "datasets/reviews/raw", "--filter", "state=part")["rows"]
    assert [(row["name"], row["size"]) for row in rows] == [(p.name, p.size) for p in raw.parts()]
    rows = shell.json("ls", "datasets/reviews/raw", "--filter", "state=snapshot")["rows"]
    assert sorted(row["name"] for row in rows) == raw.snapshots() and "run/2" in raw.snapshots()


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
    assert rows["models", "resnet50"]["size"] == 5000 and told["entries"] == 19
    (row,) = shell.json("stat", "datasets")["rows"]
    assert row["name"] == "reviews/raw" and row["size"] > 16
    code, out, _ = shell("stat")
    assert code == 0 and "█" in out and "thumbnails" in out and "the next sweep removes 5" in out
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

    name = "a" * 48
    payload = b"cos\nsystem\n(S'touch " + os.fsencode(tree.path) + b"/pwned'\ntR."
    tree.mount.write_entry("cache/f/a", name, payload, codec="pickle")
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
    (row,) = shell.json("ls", "models/resnet50")["rows"]
    assert "model.bin" in str(shell.json("show", row["path"])["value"])


def test_show_of_more_than_one_entry_asks_for_one(shell, tree):
    (row,) = shell.json("ls", "models/resnet50")["rows"]
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
    code, _, err = shell("gc")
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
    (row,) = shell.json("ls", "models/resnet50")["rows"]
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


def test_verify_reports_lost_versions(shell, tree, tmp_path):
    """It reports a model that is served, not one that was removed, nor unmanaged files."""
    from efsstate.modelstore import versions

    (row,) = shell.json("ls", "models/resnet50")["rows"]
    tree.file("models/copied/weights.bin")
    os.makedirs(tree.full("models/empty/versions"))
    assert shell.json("verify", "models")["findings"] == []
    shutil.rmtree(tree.full(row["path"]))
    (finding,) = shell.json("verify", "models", code=1)["findings"]
    assert finding["where"] == tree.full("models/resnet50") and "no versions" in finding["what"]
    versions.publish("gone", tree.full("models/copied/weights.bin"), root=tree.path)
    versions.remove("gone", grace=0, root=tree.path)
    assert len(shell.json("verify", "models", code=1)["findings"]) == 1


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


def test_rm_by_prefix_removes_the_checkpoints_that_begin_so(shell, tree):
    names = ["import/2025-01", "import/2025-02", "import/2025", "imports", "y" * 300]
    for name in names:
        with checkpoint(name, root=tree.path) as job:
            job.save(1)
    before = sorted(os.walk(tree.full("checkpoints")))
    prefix = ["rm", "--prefix", "checkpoints/import/2025-"]
    assert shell(*prefix)[0] == 2, "it asks"
    told = shell.json(*prefix, "--dry-run")
    assert told["places"] == ["checkpoints/import%2f2025-01", "checkpoints/import%2f2025-02"]
    wrong = ["checkpoints/", "checkpoints", "cache/t", "checkpoints/nope"]
    assert [shell("rm", "--prefix", text, "-y")[0] for text in wrong] == [2, 2, 2, 3]
    assert sorted(os.walk(tree.full("checkpoints"))) == before
    with checkpoint(names[1], root=tree.path):
        code, _, err = shell(*prefix, "-y")
        assert code == 3 and "claimed" in err
        assert tree.there("checkpoints/import%2f2025-01"), "none goes if one is in use"
    assert shell(*prefix, "checkpoints/import/2025-0", "-y")[0] == 0, "each is removed once"
    assert shell("rm", "--prefix", f"checkpoints/{'y' * 290}", "-y")[0] == 0, "a long name is whole"
    names = {row["name"] for row in shell.json("checkpoint", "ls")["rows"]}
    assert names == {"backfill", "import/2025", "import/2026-11-01", "imports"}


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


def test_datasets_have_commands_of_their_own(shell):
    (row,) = shell.json("ls", "datasets")["rows"]
    assert (row["name"], row["state"]) == ("reviews/raw", "kept")
    for command in ("rm", "verify"):
        code, _, err = shell(command, "datasets/reviews/raw", *["-y"][: command == "rm"])
        assert code == 2 and f"efsstate dataset {command}" in err
    assert shell("show", "datasets/reviews/raw")[0] == 2
    assert shell("ls", "datasets/nope")[0] == 3


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
        told = shell.json("checkpoint", "break", "backfill", "-y")
        assert told["broken"] and told["owner"]["pid"] == os.getpid()
        with pytest.raises(ClaimLost):
            job.save(2)
    assert shell("checkpoint", "show", "nothing")[0] == 3


def test_break_of_a_free_claim_says_so_and_fences(shell, tree):
    before = shell.json("checkpoint", "show", "backfill")["epoch"]
    err = shell("checkpoint", "break", "backfill")[2]
    assert "not held (the last claim was by a process on " in err
    code, out, _ = shell("checkpoint", "break", "backfill", "-y")
    assert (
        code == 0
        and out.startswith(
            "the claim of backfill was not held (the last claim was by a process on "
        )
        and "broke" not in out
    )
    assert shell.json("checkpoint", "show", "backfill")["epoch"] == before + 1
    assert shell.json("checkpoint", "break", "backfill", "-y")["held"] is False
    with checkpoint("backfill", root=tree.path):
        assert shell("checkpoint", "break", "backfill", "-y")[1].startswith(
            "broke the claim of backfill, held by a process on "
        )
    os.mkdir(tree.full("checkpoints/blank"))
    assert "it was never claimed" in shell("checkpoint", "break", "blank", "-y")[1]


def test_checkpoint_rebase_fences_every_owner_and_tells(shell, tree):
    names = sorted(os.listdir(tree.full("checkpoints")))
    before = sorted(os.walk(tree.full("checkpoints")))
    assert shell("checkpoint", "rebase", "--all")[0] == 2, "it asks"
    for wrong in ([], ["backfill", "--all"]):
        assert shell("checkpoint", "rebase", *wrong, "-y")[0] == 2
    seen = shell.json("checkpoint", "rebase", "--all", "--dry-run")
    assert not seen["rebased"] and sorted(os.walk(tree.full("checkpoints"))) == before
    with checkpoint("backfill", root=tree.path) as job:
        told = shell.json("checkpoint", "rebase", "--all", "-y")
        with pytest.raises(ClaimLost):
            job.save(6)
    assert told["rebased"] and len(told["rows"]) == len(names)
    rows = {row["name"]: row for row in told["rows"]}
    assert all(row["epoch"] > row["before"] > 0 for row in rows.values())
    assert rows["import/2026-11-01"]["finished"] and not rows["import/2026-11-01"]["unknown"]
    assert rows["backfill"]["unknown"] == "whether it was saved again later"
    code, out, _ = shell("checkpoint", "rebase", "backfill", "-y")
    assert code == 0 and "cannot be known" in out and "rebased 1 folder" in out
    with checkpoint("backfill", root=tree.path) as job:
        job.save(7)
    assert shell("checkpoint", "rebase", "nothing", "-y")[0] == 3


def test_checkpoint_rebase_of_a_damaged_state_exits_with_1(shell, tree):
    with checkpoint("backfill", root=tree.path) as job:
        job.save(6)
    newest = tree.full(f"checkpoints/backfill/{job.epoch}-1")
    os.chmod(newest, 0o600)
    with open(newest, "r+b") as file:
        file.truncate(file.seek(0, 2) - 1)
    told = shell.json("checkpoint", "rebase", "--all", "-y", code=1)
    (finding,) = told["findings"]
    assert finding["where"].endswith("/backfill") and "claims refuse it" in finding["do"]
    told = shell.json("checkpoint", "rebase", "backfill", "--accept-older", "-y", code=1)
    assert "goes on from" in told["findings"][0]["do"]
    assert shell.json("checkpoint", "rebase", "--all", "-y")["findings"] == []
    with checkpoint("backfill", root=tree.path) as job:
        assert job.state == {"n": 5}
    with checkpoint("t", root=tree.path).shards(2) as shards:
        for shard in shards:
            shard.finish()
    os.unlink(tree.full(f"checkpoints/t/s1/{shards.shard(1).status()['epoch']}-1"))
    told = shell.json("checkpoint", "rebase", "t", "-y", code=1)
    assert [row["name"] for row in told["rows"]] == ["t[0]", "t[1]"]
    assert [finding["where"][-5:] for finding in told["findings"]] == ["/t/s1"]
    os.unlink(tree.full("checkpoints/t/SHARDS"))
    told = shell.json("checkpoint", "rebase", "t", "-y", code=1)
    assert told["findings"][0]["do"] == "give it again: shards(n)"
    assert told["rows"][0]["unknown"] == "how many shards it had"


LONG = "exports/2026/Müller & Söhne/" + "Übersicht über alle Aufträge " * 4 + ".csv"


@pytest.mark.parametrize("name", [LONG, "x" * 300, "UPPER/Case"])
def test_a_long_name_is_whole_and_found_again(shell, tree, name):
    """The name of an S3 key does not fit into a folder's name, and is listed whole (G1)."""
    with checkpoint(name, root=tree.path) as job:
        job.save(1)
        (row,) = shell.json("checkpoint", "ls", "--filter", "state=claimed")["rows"]
        assert (row["name"], row["saves"]) == (name, 1)
        job.finish(2)
    (row,) = shell.json("checkpoint", "ls", "--filter", "state=finished", "--sort", "age:asc")[
        "rows"
    ][:1]
    assert row["name"] == name
    told = shell.json("checkpoint", "show", row["name"])
    assert (told["name"], told["state"], told["saves"]) == (name, "finished", 2)
    assert shell.json("checkpoint", "show", row["path"])["name"] == name
    assert shell.json("checkpoint", "break", row["name"], "-y")["broken"]
    assert shell.json("checkpoint", "show", name)["name"] == name, "a break keeps the name"
    assert name in [row["name"] for row in shell.json("ls", "checkpoints")["rows"]]


@pytest.fixture
def no_records(monkeypatch):
    """Each record of a claim is unreadable, as after an I/O error or a damage."""
    read_link = StateFolder.read_link

    def fail(self, name):
        if re.fullmatch(r"e\d+", name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_link(self, name)

    monkeypatch.setattr(StateFolder, "read_link", fail)


@pytest.mark.parametrize("name", [LONG, "x" * 300])
@pytest.mark.parametrize("verb", ["break", "cancel"])
def test_a_name_that_no_record_gives_back_is_the_typed_one(shell, tree, no_records, name, verb):
    """Not the folder's name with "…": that is another checkpoint, and the owner would go on."""
    before = sorted(os.listdir(tree.full("checkpoints")))
    with checkpoint(name, root=tree.path) as job:
        job.save(1)
        with ThreadPoolExecutor(1) as pool:  # a thread has one claim, and its own is that of `job`
            code, _, err = pool.submit(shell, "checkpoint", verb, name, "-y").result()
        assert code == 0, err
        with pytest.raises(ClaimLost):
            job.save(2)
    after = sorted(os.listdir(tree.full("checkpoints")))
    assert len(after) == len(before) + 1 and layout.component(name) in after
    assert checkpoint(name, root=tree.path).status()["finished"] == (verb == "cancel")


@pytest.mark.parametrize("verb", ["break", "cancel", "finish", "reset"])
def test_a_checkpoint_whose_name_is_unknown_is_not_changed(shell, tree, no_records, verb):
    """The path that `ls` prints has only part of the name."""
    with checkpoint(LONG, root=tree.path) as job:
        job.save(1)
    before = sorted(os.walk(tree.full("checkpoints")))
    path = f"checkpoints/{layout.component(LONG)}"
    code, out, err = shell("checkpoint", verb, path, "-y")
    assert (code, out) == (3, "") and "type the whole name" in err
    assert sorted(os.walk(tree.full("checkpoints"))) == before


@pytest.mark.parametrize("name", ["start", "s", "s/s1", LONG])
def test_a_shard_of_any_job_can_be_broken(shell, tree, name):
    with checkpoint(name, root=tree.path).shards(2) as shards:
        shard = next(iter(shards))
        shard.save(1)
        assert shell.json("checkpoint", "break", f"{name}[{shard.index}]", "-y")["broken"]
        with pytest.raises(ClaimLost):
            shard.save(2)


def test_a_break_that_fences_nobody_is_no_success(shell, tree, monkeypatch):
    """The checkpoint was removed after the command had looked at it."""
    monkeypatch.setattr(Checkpoint, "break_claim", lambda _: {})
    os.mkdir(tree.full("checkpoints/blank"))
    assert shell.json("checkpoint", "break", "blank", "-y")["broken"] is False
    with checkpoint("backfill", root=tree.path):
        code, out, err = shell("checkpoint", "break", "backfill", "-y")
        assert (code, out) == (3, "") and "not fenced; it was removed meanwhile" in err


def test_a_sharded_job_is_listed_by_its_shards(shell, tree):
    """All 16 of 16 shards finished is a finished job, and looking makes nothing (H1)."""
    job = checkpoint("t", root=tree.path)
    with job.shards(16) as shards:
        for shard in shards:
            for number in shard.resume(range(3)):
                shard.state = number
            if shard.index == 3:
                shard.state = 3
    before = sorted(os.walk(tree.full("checkpoints/t")))
    (row,) = shell.json("checkpoint", "ls", "--filter", "name=t")["rows"]
    assert (row["state"], row["position"], row["items"]) == ("finished", "16/16 shards", 48)
    told = shell.json("checkpoint", "show", "t")
    assert told["shards"] == {"total": 16, "done": 16, "claimed": 0}
    assert "16 of 16 done" in shell("checkpoint", "show", "t")[1]
    told = shell.json("checkpoint", "show", "t[3]")
    assert (told["name"], told["state"], told["items"]) == ("t[3]", "finished", 3)
    assert shell.json("show", "checkpoints/t[3]")["name"] == "t[3]"
    assert shell.json("show", "checkpoints/t/s3")["name"] == "t[3]"
    assert shell("checkpoint", "show", "t[99]")[0] == 3
    assert sorted(os.walk(tree.full("checkpoints/t"))) == before


def test_a_shard_in_use_shows_and_can_be_broken(shell, tree):
    with checkpoint("t", root=tree.path).shards(4) as shards:
        shard = next(iter(shards))
        shard.save(1)
        assert shell.json("checkpoint", "show", "t")["state"] == "claimed"
        name = f"t[{shard.index}]"
        assert shell.json("checkpoint", "show", name)["state"] == "claimed"
        assert shell.json("checkpoint", "break", name, "-y")["held"]
        with pytest.raises(ClaimLost):
            shard.save(2)


def test_rm_of_a_sharded_job_in_use_is_refused(shell, tree):
    """A shard's owner has acknowledged saves, which would be gone (I19)."""
    with checkpoint("t", root=tree.path).shards(4) as shards:
        shard = next(iter(shards))
        shard.save(1)
        for command in (["rm", "checkpoints/t", "-y"], ["rm", "checkpoints/t", "--dry-run"]):
            code, _, err = shell(*command)
            assert code == 3 and f"checkpoint break t[{shard.index}]" in err
        shard.save(2)
        index = shard.index
    assert shell.json("checkpoint", "show", f"t[{index}]")["saves"] == 2
    assert shell("rm", "checkpoints/t", "-y")[0] == 0 and not tree.there("checkpoints/t")


def test_rm_names_files_in_a_checkpoint_that_are_not_ours(shell, tree):
    notes = tree.file("checkpoints/backfill/output/part.csv")
    told = shell.json("rm", "checkpoints/backfill", "-y")
    assert told["foreign"] == [tree.full("checkpoints/backfill/output")] and tree.there(notes)
    assert checkpoint("backfill", root=tree.path).load() is None


def test_show_prints_the_state_if_asked(shell, tree):
    """`checkpoint show` tells all but the state; `--state` tells that too (H7)."""
    assert "value" not in shell.json("checkpoint", "show", "backfill")
    assert shell.json("checkpoint", "show", "backfill", "--state")["value"] == {"n": 5}
    assert "{'n': 5}" in shell("checkpoint", "show", "backfill", "--state")[1]
    with checkpoint("secret", root=tree.path, codec="pickle") as job:
        job.save({"n": 6})
    code, _, err = shell("checkpoint", "show", "secret", "--state")
    assert code == 3 and "'pickle'" in err and "run" in err


def test_attempts_and_skipped_items_are_shown(shell, tree):
    """An item that fails each time looks like progress without them."""
    for _ in range(3):
        with contextlib.suppress(ZeroDivisionError), checkpoint("poison", root=tree.path) as job:
            for number in job.resume([1, 0, 2], attempts=5):
                job.state = 1 // number
    told = shell.json("checkpoint", "show", "poison")
    assert told["attempts"] >= 2 and told["state"] == "waiting"
    out = shell("checkpoint", "show", "poison")[1]
    assert f"{told['attempts']} claims since the position last moved; 0 items skipped" in out
    rows = shell.json("checkpoint", "ls", "--filter", "attempts>1")["rows"]
    assert [row["name"] for row in rows] == ["poison"]


def test_reset_finish_and_cancel(shell, tree):
    for verb in ("reset", "finish", "cancel"):
        code, _, err = shell("checkpoint", verb, "backfill")
        assert code == 2 and f"would {verb}" in err and "-y" in err
        assert shell("checkpoint", verb, "backfill", "--dry-run")[0] == 0
        assert shell("checkpoint", verb, "nope", "-y")[0] == 3
    assert checkpoint("backfill", root=tree.path).load() == {"n": 5}
    assert shell.json("checkpoint", "finish", "backfill", "-y")["done"]
    job = checkpoint("backfill", root=tree.path)
    assert job.load() == {"n": 5} and job.status()["finished"]
    assert shell.json("checkpoint", "reset", "backfill", "-y")["done"]
    assert job.load() is None and not job.status()["finished"]
    with checkpoint("backfill", root=tree.path) as owner:
        owner.save({"n": 7})
        for verb in ("reset", "finish"):
            assert shell("checkpoint", verb, "backfill", "-y")[0] == 3
        # Another process's, as an operator is: a thread's own claim is refused as an error of its.
        cancel = threading.Thread(target=shell, args=("checkpoint", "cancel", "backfill", "-y"))
        cancel.start()
        cancel.join()
        with pytest.raises(ClaimLost):
            owner.save({"n": 8})
    assert job.load() == {"n": 7} and job.status()["finished"]


def test_of_a_sharded_job_they_are_refused(shell, tree):
    with checkpoint("t", root=tree.path).shards(2) as shards:
        next(iter(shards)).save(1)
    for verb in ("reset", "finish", "cancel"):
        assert shell("checkpoint", verb, "t", "-y")[0] == 2


def test_ls_of_an_entry_is_that_entry(shell, tree):
    """`ls` of a path that `ls` printed lists that, and not the whole namespace (H3)."""
    first = digests(tree, "thumbnails")[0]
    assert [row["path"] for row in shell.json("ls", first)["rows"]] == [first]
    folder = first.rpartition("/")[0]
    rows = shell.json("ls", folder)["rows"]
    assert first in [row["path"] for row in rows]
    assert {row["path"].rpartition("/")[0] for row in rows} == {folder}
    assert shell("ls", folder + "/" + "0" * 48)[0] == 3


@pytest.mark.parametrize(
    "place", ["cache/pricing", "models/resnet50", "datasets/reviews/raw", "checkpoints/t"]
)
def test_ls_of_each_path_that_it_prints_lists_that(shell, tree, place):
    """It is a file or folder below the root, and the row is the same as before (H3)."""
    with checkpoint("t", root=tree.path).shards(2) as shards:
        for shard in shards:
            shard.finish()
    dataset("reviews/raw", root=tree.path).freeze("run-1")
    rows = shell.json("ls", place)["rows"]
    assert len(rows) == {"models/resnet50": 1, "checkpoints/t": 3}.get(place, len(rows)) > 0
    for row in rows:
        assert os.path.lexists(tree.full(row["path"])), row
        again = shell.json("ls", row["path"])["rows"]
        if row["name"] != "t":  # the path of a job is that of its shards, too
            assert [(each["path"], each["size"]) for each in again] == [(row["path"], row["size"])]
    assert shell("ls", f"{place}/nothing-there")[0] == 3


def test_ls_lists_models_that_were_copied_by_hand(shell, tree):
    """A file or a folder without a publication is a row of its own (H4)."""
    tree.file("models/byhand.pth", body=b"12345")
    tree.file("models/folder/weights.bin", body=b"123")
    rows = {row["name"]: row for row in shell.json("ls", "models")["rows"]}
    assert (rows["byhand.pth"]["state"], rows["byhand.pth"]["size"]) == ("unmanaged", 5)
    assert (rows["folder"]["state"], rows["folder"]["size"]) == ("unmanaged", 3)
    assert rows["resnet50"]["state"] == "active"
    (row,) = shell.json("ls", "models/byhand.pth")["rows"]
    assert row["path"] == "models/byhand.pth"
    assert shell("stat")[0] == shell("verify")[0] == 0


@pytest.mark.parametrize("option", ["--unused-for", "--older-than", "--budget"])
@pytest.mark.parametrize("value", ["30", "1.5", " 7 ", "1h30"])
def test_a_duration_needs_its_unit(shell, option, value):
    """`gc --unused-for 30` was 30 seconds, and removed everything (H5)."""
    code, out, err = shell("gc", "-y", option, value)
    assert (code, out) == (2, "") and ("has no unit" in err or "1h30" in err)
    assert shell.tree.entries("thumbnails") == 12


def test_looking_is_no_use_of_an_entry(shell, tree):
    """On a local disk each read is noted; LRU and --unused-for go by that (H6)."""
    paths = digests(tree, "thumbnails") + digests(tree, "pricing")
    for path in paths:
        status = os.stat(tree.full(path))
        os.utime(tree.full(path), ns=(status.st_mtime_ns - 10**9, status.st_mtime_ns))
    before = {path: os.stat(tree.full(path)).st_atime_ns for path in paths}
    for command in (["verify"], ["ls"], ["stat"], ["gc", "--dry-run"], ["show", paths[0]]):
        assert shell(*command)[0] == 0
        after = {path: os.stat(tree.full(path)).st_atime_ns for path in paths}
        assert after == before, command


def test_template_overwrites_nothing_without_force(shell, tmp_path):
    """A second `template -o` is a usage error, unless --force is given (H9)."""
    target = tmp_path / "template.yaml"
    target.write_text("mine")
    code, _, err = shell("template", "sam", "-o", str(target))
    assert code == 2 and "--force" in err and target.read_text() == "mine"
    assert shell("template", "sam", "-o", str(target), "--force")[0] == 0
    assert "AWSTemplateFormatVersion" in target.read_text()


@pytest.fixture
def signed(tree, monkeypatch):
    """A cache whose entries were written with a signing key, seen by a shell without one."""
    from efsstate import Cache, process

    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "secret")
    cache = Cache("signed", root=tree.path, ttl="1d")
    for number in range(5):
        cache.set(number, number)
    monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    process.reset()
    return cache


def test_repair_without_the_signing_key_removes_nothing(shell, tree, signed):
    """A sound signed entry looks damaged to whom the key is missing (I20)."""
    paths = digests(tree, "signed")
    told = shell.json("verify", "cache/signed", "--repair", "-y", code=1)
    assert told["repaired"] == 0 and tree.there(*paths) == paths and len(paths) == 5
    assert all("EFSSTATE_SIGNING_KEY" in finding["do"] for finding in told["findings"])


@pytest.mark.parametrize("key", [None, "another"])
def test_repair_with_ones_own_policy_removes_no_signed_entry(shell, tree, signed, monkeypatch, key):
    """The shell's own key has written POLICY; the signed entries still are not its own (I20)."""
    from efsstate import Cache, process

    if key:
        monkeypatch.setenv("EFSSTATE_SIGNING_KEY", key)
        process.reset()
    paths = digests(tree, "signed")
    os.remove(tree.full("cache/signed/POLICY"))  # without a key it would be left as it is
    Cache("signed", root=tree.path, ttl="1d").set("mine", 1)
    assert shell.json("verify", "cache/signed", "--repair", "-y", code=1)["repaired"] == 0
    assert tree.there(*paths) == paths


def test_repair_leaves_what_cannot_be_read_again(shell, tree, signed, monkeypatch):
    """One failed read does not tell a signed entry from one that is cut."""
    from efsstate.format import entry
    from efsstate.mount.files import Mount

    paths, real, failed = digests(tree, "signed"), Mount.read_stat, []

    def read_stat(mount, folder, name, limit=None, **more):
        if limit == entry.HEADER and name != "POLICY" and not failed:
            failed.append(name)
            raise OSError(5, "Input/output error")
        return real(mount, folder, name, limit, **more)

    monkeypatch.setattr(Mount, "read_stat", read_stat)
    assert shell.json("verify", "cache/signed", "--repair", "-y", code=1)["repaired"] == 0
    assert failed and tree.there(*paths) == paths


def test_repair_of_an_entry_that_is_cut_needs_no_key(shell, tree, signed):
    """A length that does not fit is damage, whoever signed it."""
    victim = digests(tree, "signed")[0]
    os.truncate(tree.full(victim), 50)
    assert shell.json("verify", "cache/signed", "--repair", "-y", code=1)["repaired"] == 1
    assert not tree.there(victim) and len(digests(tree, "signed")) == 4


def test_without_a_root_nothing_is_made(tmp_path, monkeypatch, capfd):
    """No root is an error of the command, and no reason to make one (H2)."""
    from efsstate.cli import app

    monkeypatch.delenv("EFSSTATE_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    for command in ("ls", "stat", "verify", "gc -y", "checkpoint ls", "model list", "show cache/x"):
        assert app.run(command.split()) == 3, command
        assert "--root" in capfd.readouterr().err, command
    assert os.listdir(tmp_path) == []


def test_an_empty_root_is_no_error(tmp_path, capfd):
    from efsstate.cli import app

    for command in ("ls", "stat", "verify", "gc", "checkpoint ls"):
        assert app.run([*command.split(), "--root", str(tmp_path)]) == 0, command
    capfd.readouterr()
    assert os.listdir(tmp_path) == []


def test_verify_reads_records(shell, tree):
    """A record is a chain of links, and a long value a file; each damaged one is named."""
    from efsstate.mount import links
    from efsstate.records.revision import CLAIMED, DONE, Content
    from efsstate.records.store import RecordStore

    before = shell.json("verify")["checked"]
    store = RecordStore(tree.mount, "orders", 10**7)
    expires = int(time.time()) + 3600
    store.claim("a", Content(CLAIMED, expires))
    store.put("b", Content(DONE, expires, value="short"))
    store.put("c", Content(DONE, expires, value="long" * 2000))
    assert shell.json("verify")["checked"] == before + 4, "three links and a file"
    assert shell.json("verify", "records/orders.10000000")["checked"] == 4
    files = [path for path in pathlib.Path(tree.path, "records").rglob("*") if path.is_file()]
    found = sorted(path for path in pathlib.Path(tree.path, "records").rglob("*.1"))
    (value,) = [path for path in files if "-" in path.name]
    changed = value.read_bytes()[:-1] + b"!"
    value.write_bytes(changed)
    target = os.readlink(found[0])
    os.unlink(found[0])
    os.symlink(target.replace("claimed", "freed").replace("done", "freed"), found[0])
    os.unlink(found[1])
    os.mkdir(found[1])
    os.unlink(found[2])
    folder, name = os.path.relpath(found[2].parent, tree.path), found[2].name
    links.create(tree.mount, folder, name, "no revision")
    told = shell.json("verify", "records", code=1)
    assert sorted(each["where"] for each in told["findings"]) == sorted(map(str, [*found, value]))
    reasons = " ".join(each["what"] for each in told["findings"])
    assert "checksum" in reasons and "its text is no revision's" in reasons, reasons
    assert "where a link of ours belongs" in reasons, reasons
    assert all("calls with its key fail" in each["do"] for each in told["findings"])
    assert told["checked"] == 4 and value.read_bytes() == changed
    assert shell("verify", "--repair", "-y")[0] == 1 and value.exists()
    # The advice: once the damaged file is removed, the call may run again.
    with pytest.raises(CorruptEntryError):
        print([store.claim(key, Content(CLAIMED, expires)) for key in "abc"])
    for path in found:
        os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
    for key in "abc":
        assert store.claim(key, Content(CLAIMED, expires)).number == 1
