"""The command `efsstate model`: what it prints, what it exits with, and its documents."""

import contextlib
import json
import os

import pytest
from tests.modelstore.conftest import dying, place

import efsstate
from efsstate import publish
from efsstate.cli.main import main
from efsstate.mount import drafts


@pytest.fixture
def run(root, capsys):
    def run(*given):
        code = main(["model", given[0], "--root", root, *given[1:]])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def two(run, tmp_path, root):
    ids = []
    for text in ("one", "two"):
        (tmp_path / "w").write_text(text)
        code, out, _ = run("publish", "shop/ranking", str(tmp_path / "w"), "--json")
        document = json.loads(out)
        assert code == 0 and document["active"] and document["schema"] == "efsstate.model.publish"
        ids.append(document["id"])
    return ids


def killed(root, tmp_path):
    """What a publication of the model m leaves that is killed in its first file.

    The folder's path.
    """
    (tmp_path / "k").write_text("killed")

    def half():
        drafts.PartialFile.finish = lambda *_: os.kill(os.getpid(), 9)
        publish("m", tmp_path / "k", root=root)

    assert dying(half, 0)[0] == -9
    (left,) = [
        name
        for name in os.listdir(place(root, "m", ""))
        if not name.endswith(".lock") and name.startswith(".tmp-")
    ]
    return place(root, "m", left)


def test_publish_and_list(run, two, root):
    code, out, _ = run("list")
    assert code == 0 and [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["shop/ranking", two[1], "active"],
        ["shop/ranking", two[0], "inactive"],
    ]
    os.mkdir(f"{root}/models/by-hand")
    code, out, _ = run("list", "--json")
    rows = json.loads(out)["versions"]
    assert [(r["name"], r["id"], r.get("active")) for r in rows] == [
        ("by-hand", None, None),
        ("shop/ranking", two[1], True),
        ("shop/ranking", two[0], False),
    ]
    code, _, err = run("list", "nope")
    assert code == 3 and "publish one" in err


def test_publish_without_activating_and_with_an_id(run, two, tmp_path):
    (tmp_path / "w").write_text("three")
    code, out, _ = run(
        "publish", "shop/ranking", str(tmp_path / "w"), "--version", "v3", "--no-activate"
    )
    assert (code, out) == (0, "shop/ranking v3 published\n")
    assert run("activate", "shop/ranking", "v3")[:2] == (0, "shop/ranking v3 is active\n")
    (tmp_path / "w").write_text("four")
    code, _, err = run("publish", "shop/ranking", str(tmp_path / "w"), "--version", "v3")
    assert code == 3 and "with other content" in err


def test_publish_without_activating_says_if_it_is_active(run, two, tmp_path):
    """Publish without activating says that it is active if it is."""
    again = ("publish", "shop/ranking", str(tmp_path / "w"), "--no-activate")
    assert (
        run(*again)[:2] == (0, f"shop/ranking {two[1]} is active\n")
        and json.loads(run(*again, "--json")[1])["active"]
    )
    run("activate", "shop/ranking", two[0])
    assert (
        run(*again)[:2] == (0, f"shop/ranking {two[1]} published\n")
        and not json.loads(run(*again, "--json")[1])["active"]
    )


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["activate", "shop/ranking", "nope"], 3, "no such version"),
        (["activate", "shop/ranking", "a/b"], 2, "can't be used"),
        (["activate", "a b", "x"], 2, "can't be used"),
        (["publish", "../x", "/etc/hostname"], 2, "can't be used"),
        (["publish", "x", "/nope"], 2, "does not exist"),
        (["publish", "x", "/dev/null"], 3, "neither a file nor a folder"),
        (["prune", "shop/ranking", "--keep", "0"], 2, "0"),
        (["prune", "shop/ranking", "--grace", "soon"], 2, "not a duration"),
        (
            ["prune", "shop/ranking", "--keep", "1", "--grace", "0s"],
            2,
            "without a terminal it needs -y",
        ),
    ],
)
def test_mistakes(run, two, given, code, said):
    got, _, err = run(*given)
    assert got == code and said in err


def test_verify_finds_damage(run, two, root):
    assert run("verify", "shop/ranking")[:2] == (0, "shop/ranking: every byte is as published\n")
    with open(place(root, "shop/ranking", two[0]) + "/w", "w") as file:
        file.write("One")
    code, out, _ = run("verify", "shop/ranking")
    assert code == 1 and "SHA-256" in out
    code, out, _ = run("verify", "shop/ranking", "--json")
    assert code == 1 and [f["where"] for f in json.loads(out)["findings"]] == [
        place(root, "shop/ranking", two[0]) + "/w"
    ]


def test_verify_knows_paths_and_advice_apart(run, root, tmp_path, capsys):
    """Whatever the files are called; and the advice is the finding's own."""
    (tmp_path / "s").mkdir()
    for name in ("step: 1.bin", "b", "c"):
        (tmp_path / "s" / name).write_text("abc")
    made = json.loads(run("publish", "m", str(tmp_path / "s"), "--json")[1])["id"]
    folder = place(root, "m", made)
    for name, text in (("step: 1.bin", "abd"), ("b", "ab"), ("extra", "")):
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)
    os.remove(f"{folder}/c")
    os.remove(place(root, "m", "CURRENT"))
    for command in (["model", "verify", "m"], ["verify", "models/m"]):
        assert main([*command, "--root", root, "--json"]) == 1
        found = {
            one["where"]: (one["what"], one["do"])
            for one in json.loads(capsys.readouterr().out)["findings"]
        }
        assert found == {
            place(root, "m", "CURRENT"): ("missing: no version is active", "activate one"),
            f"{folder}/step: 1.bin": (
                "its SHA-256 is not the one that was published",
                "activate another version, or publish it under a new id",
            ),
            f"{folder}/b": (
                "2 bytes, and 3 were published",
                "publish it again, or activate another version",
            ),
            f"{folder}/c": ("missing", "publish it again, or activate another version"),
            f"{folder}/extra": ("it was not published with this version", "remove it"),
        }


def test_prune(run, two):
    assert run("prune", "shop/ranking", "--keep", "1", "--dry-run")[:2] == (
        0,
        "shop/ranking: nothing to remove\n",
    )
    code, out, _ = run("prune", "shop/ranking", "--keep", "1", "--grace", "0s", "--dry-run")
    assert (code, out) == (0, f"shop/ranking: would remove {two[0]}\n")
    code, out, _ = run("prune", "shop/ranking", "--keep", "1", "--grace", "0s", "-y", "--json")
    assert code == 0 and json.loads(out)["removed"] == [two[0]]
    assert (
        run("prune", "shop/ranking", "--keep", "1", "--grace", "0s", "-y")[1]
        == "shop/ranking: nothing to remove\n"
    )


@pytest.mark.parametrize("alone", [True, False])
def test_prune_asks_before_it_removes_leftovers(run, root, tmp_path, alone):
    """Prune asks before it removes what a killed publication left."""
    if not alone:
        publish("m", tmp_path.joinpath("k").write_text("1") and tmp_path / "k", root=root)
    left = killed(root, tmp_path)
    prune = ("prune", "m", "--grace", "0s")
    code, _, err = run(*prune)
    assert (
        code == 2
        and f"{os.path.basename(left)} (left by a publication); without a terminal it needs -y"
        in err
        and os.path.exists(left)
    )
    code, out, _ = run(*prune, "--dry-run")
    assert (code, out) == (
        0,
        f"m: would remove {os.path.basename(left)} (left by a publication)\n",
    ) and os.path.exists(left)
    assert run("prune", "m", "--dry-run")[:2] == (0, "m: nothing to remove\n")
    told = json.loads(run(*prune, "-y", "--json")[1])
    assert (told["removed"], told["leftovers"], told["removed_leftovers"]) == (
        [],
        [left],
        [left],
    ) and not os.path.exists(left)


def test_what_is_no_model_does_not_hide_the_others(run, two, root):
    """Files, folders and links that were put among the models."""
    for name in ("My Model", "a--b--"):
        os.mkdir(f"{root}/models/{name}")
    with open(f"{root}/models/my-model.pth", "w") as file:
        file.write("x")
    os.symlink("/etc", f"{root}/models/link")
    code, out, _ = run("list")
    lines = out.splitlines()[1:]
    assert code == 0 and [line.split()[0] for line in lines] == [
        "my-model.pth",
        "shop/ranking",
        "shop/ranking",
        "My",
        "a--b--",
        "link",
    ]
    assert "unmanaged" in lines[0] and all("not a model" in line for line in lines[3:])
    code, out, _ = run("list", "--json")
    assert code == 0 and json.loads(out)["strangers"] == [
        f"{root}/models/{name}" for name in ("My Model", "a--b--", "link")
    ]
    for command in ("list", "verify", "prune"):
        code, _, err = run(command, "my-model.pth", *(["-y"] if command == "prune" else []))
        assert (
            code == 3
            and "unmanaged: it was copied here, and has no versions" in err
            and "remove" not in err
        )


def test_a_killed_first_publication_is_no_unmanaged_model(run, root, tmp_path, capsys):
    """A model whose first publication was killed has no version and is not put there by hand."""
    killed(root, tmp_path)
    os.mkdir(f"{root}/models/by-hand")
    (tmp_path / "root" / "models" / "by-hand" / "w").write_text("x")
    code, out, _ = run("list")
    assert (
        code == 0
        and [line.split("  ")[0] for line in out.splitlines()[1:]] == ["by-hand", "m"]
        and "unmanaged" in out.splitlines()[1]
        and "no version" in out.splitlines()[2]
    )
    rows = json.loads(run("list", "--json")[1])["versions"]
    assert [(r["name"], r["id"], r["state"]) for r in rows] == [
        ("by-hand", None, "unmanaged"),
        ("m", None, "no version"),
    ]
    assert main(["ls", "models", "--root", root, "--json"]) == 0
    assert [(r["name"], r["state"]) for r in json.loads(capsys.readouterr().out)["rows"]] == [
        ("by-hand", "unmanaged"),
        ("m", "no version"),
    ]


def test_a_model_that_fails_does_not_hide_the_others(run, two, root):
    """A model that cannot be looked at does not hide the others."""
    os.mkdir(f"{root}/models/bad")
    with open(f"{root}/models/bad/versions", "w") as file:
        file.write("x")
    code, out, err = run("list")
    assert code == 3 and out.count("shop/ranking") == 2 and "bad/versions" in err


def test_the_bar_advances_to_its_end(monkeypatch):
    """By percent, however many bytes there are at once."""
    from efsstate.cli import model, output

    seen = []

    class Out(output.Output):
        @contextlib.contextmanager
        def progress(self, what, total=None):
            yield seen.append

    with model._bar(Out.__new__(Out), "publishing") as progress:
        for done in (0, 1, 500, 500, 1000):
            progress(done, 1000)
    assert sum(seen) == 100 and all(one > 0 for one in seen) and len(seen) == 2


@pytest.fixture
def three(root, tmp_path):
    ids = []
    for text in "012":
        (tmp_path / "w").write_text(text)
        ids.append(publish("m", tmp_path / "w", root=root))
    return ids


def document(capsys, code, args):
    """The JSON document of a command that ends with `code`."""
    assert main([*args, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_list_shows_labels_and_shares(root, three, capsys):
    assert main(["model", "activate", "m", three[0], "--label", "staging", "--root", root]) == 0
    assert main(["model", "activate", "m", three[1], "--share", "0.25", "--root", root]) == 0
    capsys.readouterr()
    assert main(["model", "list", "m", "--root", root]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split()[1]: line for line in lines if line.split()[0] == "m"}
    assert "active, 75%" in cells[three[2]] and "canary, 25%" in cells[three[1]]
    assert "inactive" in cells[three[0]] and "staging" in cells[three[0]]


@pytest.mark.parametrize("label", [[], ["--label", "staging"]])
def test_a_share_of_the_active_version_is_all_of_it(root, three, capsys, label):
    activate = ["model", "activate", "m", three[1], *label, "--root", root]
    assert main(activate) == 0
    capsys.readouterr()
    assert document(capsys, 0, [*activate, "--share", "0.5"])["share"] == 1.0


def test_list_shows_who_uses_a_version(root, three, capsys, monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "service")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "12")
    efsstate.model("m", version=three[0], root=root)()
    listed = document(capsys, 0, ["model", "list", "m", "--root", root])["versions"]
    assert {each["id"]: each["users"] for each in listed}[three[0]] == ["service:12"]
    assert main(["model", "list", "m", "--root", root]) == 0
    assert "service:12" in capsys.readouterr().out


def test_ids_may_be_abbreviated(root, three, capsys):
    told = document(capsys, 0, ["model", "activate", "m", three[0][:6], "--root", root])
    assert told["id"] == three[0]
    assert main(["model", "activate", "m", "nope", "--root", root]) != 0
    publish("m", f"{root}/models/m/versions/{three[0]}/w", version=f"{three[0]}-b", root=root)
    assert (
        document(capsys, 0, ["model", "activate", "m", three[0], "--root", root])["id"]
        == (three[0])
    )
    assert main(["model", "activate", "m", three[0][:6], "--root", root]) == 2
    assert "ambiguous" in capsys.readouterr().err


def test_rollback_goes_back(root, three, capsys):
    told = document(capsys, 0, ["model", "rollback", "m", "--root", root])
    assert told["id"] == three[1]


def test_rm_asks_and_keeps_the_grace(root, three, capsys):
    assert main(["model", "rm", "m", "--root", root]) == 2
    assert "without a terminal it needs -y" in capsys.readouterr().err
    told = document(capsys, 0, ["model", "rm", "m", "--dry-run", "--root", root])
    assert told["found"] == [] and set(told["later"]) == set(three) and told["dry_run"]
    told = document(capsys, 0, ["model", "rm", "m", "-y", "--root", root])
    assert told["removed"] == [] and set(told["later"]) == set(three)
    assert document(capsys, 0, ["model", "list", "--root", root])["versions"] == []
    told = document(capsys, 0, ["model", "rm", "m", "-y", "--grace", "0", "--root", root])
    assert set(told["removed"]) == set(three) and os.listdir(f"{root}/models") == []


def test_publish_takes_patterns(root, tmp_path, capsys):
    for name in ("a.bin", "b.txt", "c.lock"):
        (tmp_path / "s").mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_text(name)
    args = ["model", "publish", "p", str(tmp_path / "s"), "--root", root]
    told = document(capsys, 0, [*args, "--exclude", "*.txt"])
    assert os.listdir(place(root, "p", told["id"])) in (
        ["a.bin", ".efsstate-manifest"],
        [".efsstate-manifest", "a.bin"],
    )
    told = document(capsys, 0, [*args, "--include", "*.txt"])
    assert set(os.listdir(place(root, "p", told["id"]))) == {"b.txt", ".efsstate-manifest"}
