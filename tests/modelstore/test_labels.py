"""Labels, pins, canaries, roll-backs and removal.

Who serves which version, and what a prune leaves.
"""

import json
import os
import pathlib
import shutil
import threading
import time

import pytest
from tests.modelstore.conftest import active, dying, place

import efsstate
from efsstate import ModelNotFound, activate, model, process, prune, publish, verify, versions
from efsstate.errors import EfsStateError
from efsstate.modelstore.draws import draw
from efsstate.modelstore.versions import remove, rollback

OLD = 2 * 86400  # seconds


@pytest.fixture
def put(root, tmp_path):
    def put(text, **more):
        (tmp_path / "w").write_text(text)
        return publish("m", tmp_path / "w", root=root, **more)

    return put


@pytest.fixture
def three(put):
    return [put("0"), put("1"), put("2")]


def serve(root, **more):
    """A new environment's answer: the text of the version that it serves."""
    return model("m", lambda files: bytes(files.read()).decode(), root=root, **more)()


def age(root, *ids):
    for version in ids:
        os.utime(f"{place(root, 'm', version)}/.efsstate-manifest", (1, 1))


def names(root):
    return set(os.listdir(f"{root}/models/m/versions"))


def test_a_label_serves_its_own_version(root, three):
    activate("m", three[0], label="staging", root=root)
    assert serve(root) == "2" and serve(root, label="staging") == "0"
    activate("m", three[1], label="staging", root=root)
    assert serve(root) == "2" and serve(root, label="staging") == "1"
    listed = {v.id: (v.active, v.labels, v.share) for v in versions("m", root=root)}
    assert listed == {
        three[2]: (True, [], 1.0),
        three[1]: (False, ["staging"], 0.0),
        three[0]: (False, [], 0.0),
    }
    assert verify("m", root=root) == []


def test_a_running_model_follows_its_label(root, three):
    activate("m", three[0], label="a.b_c-1", root=root)
    get = model("m", lambda f: bytes(f.read()), label="a.b_c-1", check_every=0, root=root)
    assert get() == b"0"
    activate("m", three[1], label="a.b_c-1", root=root)
    assert get() == b"1"
    os.unlink(place(root, "m", "@a.b_c-1"))
    assert get() == b"1"  # and goes on


def test_a_label_that_nothing_has_says_so(root, three):
    with pytest.raises(ModelNotFound, match="no version of model 'm' has the label 'staging'"):
        serve(root, label="staging")
    with pytest.raises(ModelNotFound, match="no model 'n'"):
        model("n", label="staging", root=root)()
    with pytest.raises(ModelNotFound, match="has no such version"):
        serve(root, version="nope")


@pytest.mark.parametrize(
    "label", ["", "a/b", "a b", "@x", "x%", ".x", "-x", "x" * 65, 3, "CURRENT"]
)
def test_a_label_that_is_no_name_is_refused(root, three, label):
    with pytest.raises(ValueError, match="label"):
        activate("m", three[0], label=label, root=root)
    with pytest.raises(ValueError, match="label"):
        model("m", label=label, root=root)


def test_options_that_exclude_each_other(root, three):
    for bad in (
        {"version": three[0], "label": "x"},
        {"version": "a/b"},
    ):
        with pytest.raises(ValueError, match="version"):
            model("m", root=root, **bad)
    with pytest.raises(ValueError, match="a path has no versions"):
        model("/mnt/m", label="x")
    for share in (0, -1, 1.5, True, "half", float("nan")):
        with pytest.raises(ValueError, match="share"):
            activate("m", three[0], share=share, root=root)


def test_prune_leaves_what_a_label_names(root, three):
    activate("m", three[0], label="staging", root=root)
    age(root, *three)
    assert prune("m", keep=1, root=root) == [three[1]]
    activate("m", three[2], label="staging", root=root)
    assert prune("m", keep=1, root=root) == []  # its grace began when the label left it
    age(root, *three[::2])
    assert prune("m", keep=1, root=root) == [three[0]]


def test_a_damaged_label_keeps_all_versions(root, three):
    """Any of them may be served under it."""
    activate("m", three[0], label="staging", root=root)
    link = place(root, "m", "@staging")
    os.rename(link, f"{link}x")
    os.symlink("damaged", link)
    os.unlink(f"{link}x")
    age(root, *three)
    assert prune("m", keep=1, root=root) == []
    assert any("@staging" in text for text in verify("m", root=root))


def test_a_label_set_while_a_prune_takes_the_version(root, three, monkeypatch):
    from efsstate.modelstore import pruning

    age(root, *three)
    real = pruning._remove_version

    def late(mount, name, version, *more):
        if version == three[0]:
            activate("m", three[0], label="staging", root=root)
            age(root, three[0])
        return real(mount, name, version, *more)

    monkeypatch.setattr(pruning, "_remove_version", late)
    assert prune("m", keep=1, root=root) == [three[1]]
    assert serve(root, label="staging") == "0"


def test_a_pinned_version_is_served_whatever_is_active(root, three, put):
    get = model("m", lambda f: bytes(f.read()), version=three[0], check_every=0, root=root)
    assert get() == b"0"
    put("3")
    assert get() == b"0" and get.version == three[0]


def test_a_pinned_version_is_noted_as_in_use(root, three, monkeypatch):
    """At its load, and once an hour while it is asked for.

    So no prune takes it within the grace.
    """
    now = [1000.0]
    monkeypatch.setattr("efsstate.modelstore.resolve.time.monotonic", lambda: now[0])
    age(root, *three)
    get = model("m", lambda f: bytes(f.read()), version=three[0], check_every=0, root=root)
    get()
    assert prune("m", keep=1, root=root) == [three[1]]
    age(root, three[0])
    get()
    manifest = f"{place(root, 'm', three[0])}/.efsstate-manifest"
    assert os.stat(manifest).st_mtime == 1  # not at each call
    now[0] += 3601
    get()
    assert os.stat(manifest).st_mtime > 1 and prune("m", keep=1, root=root) == []


def test_the_users_of_a_version_are_listed(root, three, monkeypatch):
    """Functions by name and version, once each; old notes are not shown, and go with a prune."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "service")
    for number in ("7", "8", "7"):
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", number)
        serve(root, version=three[0])
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME")
    serve(root, version=three[1])
    serve(root)  # the active one is not noted
    users = {version.id: version.users for version in versions("m", root=root)}
    host = os.uname().nodename
    assert users == {three[0]: ["service:7", "service:8"], three[1]: [host], three[2]: []}
    folder = f"{root}/.efsstate/users/m"
    for name in os.listdir(folder):
        if "service:7" in os.readlink(f"{folder}/{name}"):
            os.utime(f"{folder}/{name}", (0, time.time() - 7300), follow_symlinks=False)
    assert versions("m", root=root)[0].users == [] and len(os.listdir(folder)) == 3
    users = {version.id: version.users for version in versions("m", root=root)}
    assert users[three[0]] == ["service:8"]
    prune("m", grace="1h", root=root)
    assert len(os.listdir(folder)) == 2
    for name in os.listdir(folder):
        os.utime(f"{folder}/{name}", (0, 0), follow_symlinks=False)
    prune("m", root=root)
    assert not os.path.exists(folder)


def test_a_damaged_note_of_a_user_is_passed_over(root, three):
    serve(root, version=three[0])
    folder = f"{root}/.efsstate/users/m"
    os.symlink("x y", f"{folder}/{'a' * 32}")
    open(f"{folder}/{'b' * 32}", "w").close()
    assert sum(len(v.users) for v in versions("m", root=root)) == 1
    assert efsstate.verify("m", root=root) == []
    assert efsstate.sweep(root=root).finished


def test_a_version_that_goes_on_serving_is_noted(root, three):
    """The new one does not load: the old one is in use, though it has not been active for long."""

    def load(files):
        if files.version == three[2]:
            raise ValueError("bad weights")
        return files.path

    activate("m", three[1], root=root)
    get = model("m", load, check_every=0, root=root)
    get()
    activate("m", three[2], root=root)
    age(root, *three)
    for _ in range(3):
        assert three[1] in get()
    assert prune("m", keep=1, root=root) == [three[0]]


def environments(root, count=200, **more):
    """What each of so many environments serves, in its own process as far as the draw tells."""
    served = []
    for i in range(count):
        os.environ["AWS_LAMBDA_LOG_STREAM_NAME"] = f"2026/11/29/[$LATEST]{i:032x}"
        served.append(serve(root, **more))
    return served


@pytest.fixture
def lambda_environment(monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "x")


def test_a_canary_of_ten_percent(root, three, lambda_environment):
    """Within the binomial bounds over 200 environments; more of them with a greater share."""
    activate("m", three[1], root=root)
    activate("m", three[2], share=0.1, root=root)
    first = environments(root)
    assert 6 <= first.count("2") <= 36 and first.count("1") == 200 - first.count("2")  # 5 sigma
    assert environments(root) == first  # each decides once
    activate("m", three[2], share=0.5, root=root)
    second = environments(root)
    assert 65 <= second.count("2") <= 135
    assert all(b == "2" for a, b in zip(first, second, strict=True) if a == "2")
    shares = {v.id: v.share for v in versions("m", root=root)}
    assert shares == {three[0]: 0.0, three[1]: 0.5, three[2]: 0.5} and active(root, "m") == three[1]
    activate("m", three[2], root=root)
    assert environments(root, 20) == ["2"] * 20 and not {"CURRENT%"} & names(root)


@pytest.mark.parametrize("how", ["activate", "rollback"])
def test_a_canary_is_rolled_back(root, three, lambda_environment, how):
    activate("m", three[1], root=root)
    activate("m", three[2], share=0.5, root=root)
    assert set(environments(root, 40)) == {"1", "2"}
    if how == "activate":
        activate("m", three[1], root=root)
    else:
        assert rollback("m", root=root) == three[1]
    assert set(environments(root, 40)) == {"1"} and "CURRENT%" not in names(root)
    age(root, three[0])
    assert prune("m", keep=1, root=root) == [three[0]]  # the canary has its grace


def end_canary(root, three, version):
    """Start version 1 as a canary beside 0, and activate `version`; return the canary's text.

    The canary's link is there, as if the process had been killed before it removed the link.
    """
    activate("m", three[0], root=root)
    activate("m", three[1], share=0.5, root=root)
    link = place(root, "m", "CURRENT%")
    text = os.readlink(link)
    activate("m", version, root=root)
    assert not os.path.lexists(link)
    served = str(three.index(version))
    assert set(environments(root, 40)) == {served}
    os.symlink(text, link)
    return text


def test_another_activation_ends_a_canary(root, three, lambda_environment):
    """In the same step: a canary counts beside the version that it was started beside, only."""
    end_canary(root, three, three[2])
    assert set(environments(root, 40)) == {"2"}
    assert active(root, "m") == three[2] and verify("m", root=root) == []
    age(root, three[1])
    assert three[1] in prune("m", keep=1, root=root)


@pytest.fixture
def ended_canary(root, three, lambda_environment):
    """Version 1 was a canary beside 0, and is active; the activation was killed before its end."""
    return end_canary(root, three, three[1])


@pytest.mark.parametrize("how", ["activate", "rollback", "publish"])
def test_a_canary_that_ended_does_not_begin_again(root, three, ended_canary, put, how):
    """When the version that it was beside is served again."""
    if how == "publish":
        put("0")
    elif how == "activate":
        activate("m", three[0], root=root)
    else:
        assert rollback("m", root=root) == three[0]
    assert set(environments(root, 40)) == {"0"} and "CURRENT%" not in names(root)
    assert active(root, "m") == three[0]


def test_no_kill_lets_a_canary_begin_again(root, three, ended_canary):
    for at in range(1, 60):
        copy = f"{root}.{at}"
        shutil.copytree(root, copy, symlinks=True)
        code, *_ = dying(lambda: activate("m", three[0], root=copy), at)
        assert set(environments(copy, 20)) in ({"0"}, {"1"}), at
        if code == 0:
            break
    assert at > 3 and set(environments(copy, 20)) == {"0"}


def test_a_failed_activation_leaves_a_canary(root, three, lambda_environment, monkeypatch):
    """The new version is removed meanwhile; the old one is active again, with its canary."""
    from efsstate.modelstore import activation, pointer

    activate("m", three[0], root=root)
    activate("m", three[1], share=0.5, root=root)
    real = pointer.write

    def write(*given):
        monkeypatch.setattr(pointer, "write", real)
        shutil.rmtree(place(root, "m", three[2]))
        real(*given)

    monkeypatch.setattr(pointer, "write", write)
    monkeypatch.setattr(activation, "_PAUSE", 0)
    with pytest.raises(ModelNotFound, match="no such version"):
        activate("m", three[2], root=root)
    assert set(environments(root, 40)) == {"0", "1"}


def test_a_label_has_canaries_of_its_own(root, three, lambda_environment):
    activate("m", three[0], label="staging", root=root)
    activate("m", three[1], label="staging", share=0.5, root=root)
    assert set(environments(root, 40)) == {"2"}
    assert set(environments(root, 40, label="staging")) == {"0", "1"}
    age(root, *three)
    assert prune("m", keep=1, root=root) == []
    assert {v.id: v.labels for v in versions("m", root=root)} == {
        three[0]: ["staging"],
        three[1]: ["staging (50%)"],
        three[2]: [],
    }


def test_a_share_beside_nothing_is_refused(root, put):
    made = put("1", activate=False)
    with pytest.raises(EfsStateError, match="no version is active beside which"):
        activate("m", made, share=0.1, root=root)
    with pytest.raises(EfsStateError, match="no version is active beside which"):
        activate("m", made, label="x", share=0.1, root=root)


def test_a_damaged_canary_is_ignored(root, three, lambda_environment, caplog):
    activate("m", three[1], root=root)
    os.symlink("damaged", place(root, "m", "CURRENT%"))
    assert set(environments(root, 20)) == {"1"} and "the canary is ignored" in caplog.text
    activate("m", three[2], share=0.5, root=root)
    assert set(environments(root, 20)) == {"1", "2"}


def test_two_activations_of_one_share_at_once(root, three, lambda_environment):
    """Each is whole: the last one counts, and no environment fails."""
    activate("m", three[0], root=root)
    start, failures = threading.Barrier(3), []

    def run(version):
        start.wait()
        for share in (0.1, 0.5, 0.9):
            try:
                activate("m", version, share=share, root=root)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=run, args=(v,)) for v in three[1:]]
    for thread in threads:
        thread.start()
    start.wait()
    served = {serve(root) for _ in range(40)}
    for thread in threads:
        thread.join()
    assert not failures and served <= {"0", "1", "2"}
    shares = sorted(v.share for v in versions("m", root=root))
    assert shares == [0.0, pytest.approx(0.1), 0.9] and verify("m", root=root) == []


def test_the_draw_is_even_and_each_version_has_another(monkeypatch):
    numbers = []
    for i in range(2000):
        monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", f"stream {i}")
        numbers.append((draw("models/m", "v1"), draw("models/m", "v2")))
    for part in zip(*numbers, strict=True):
        assert all(140 <= sum(k / 10 <= n < (k + 1) / 10 for n in part) <= 260 for k in range(10))
    assert 0.3 < sum(a < b for a, b in numbers) / 2000 < 0.7


def test_without_lambda_a_process_draws_once(monkeypatch):
    monkeypatch.delenv("AWS_LAMBDA_LOG_STREAM_NAME", raising=False)
    assert draw("m", "v") == draw("m", "v")
    before = {draw("m", "v")}
    for _ in range(5):
        process.reset()
        before.add(draw("m", "v"))
    assert len(before) == 6


def test_rollback_goes_to_what_was_active_before(root, three):
    assert rollback("m", root=root) == three[1] and active(root, "m") == three[1]
    assert rollback("m", root=root) == three[2]  # and forward again
    activate("m", three[0], label="x", root=root)
    with pytest.raises(ModelNotFound, match="no version was active before"):
        rollback("m", label="x", root=root)


def test_a_killed_label_change_leaves_the_old_or_the_new(root, three):
    """At whatever change of the disk; and no reader fails meanwhile."""
    import shutil

    activate("m", three[0], label="x", root=root)
    for at in range(1, 60):
        copy = f"{root}.{at}"
        shutil.copytree(root, copy, symlinks=True)
        code, *_ = dying(lambda: activate("m", three[1], label="x", root=copy), at)
        assert serve(copy, label="x") in ("0", "1") and verify("m", root=copy) == []
        if code == 0:
            break
    assert at > 3 and serve(copy, label="x") == "1"


def test_a_removed_model_is_not_found_and_goes_after_the_grace(root, three):
    get = model("m", lambda files: bytes(files.read()), check_every=0, root=root)
    assert get() == b"2"
    age(root, three[0])
    assert remove("m", root=root) == [three[0]]
    assert efsstate.models(root=root) == [] and get() == b"2"
    with pytest.raises(ModelNotFound, match="the model was removed; publish it again"):
        serve(root)
    assert {v.id for v in versions("m", root=root)} == set(three[1:])
    assert verify("m", root=root) == []
    age(root, *three[1:])
    efsstate.sweep(root=root)
    assert os.listdir(f"{root}/models") == []
    with pytest.raises(ModelNotFound):
        remove("m", root=root)


def test_a_model_is_removed_at_once_without_a_grace(root, three):
    activate("m", three[0], label="x", root=root)
    assert set(remove("m", grace=0, dry_run=True, root=root)) == set(three)
    assert remove("m", dry_run=True, root=root) == [] and serve(root) == "2"
    assert set(remove("m", grace=0, root=root)) == set(three)
    assert os.listdir(f"{root}/models") == []


@pytest.mark.parametrize("how", ["publish", "activate", "rollback"])
def test_a_removed_model_comes_back(root, three, put, how):
    remove("m", root=root)
    if how == "publish":
        put("2")
    elif how == "activate":
        activate("m", three[2], root=root)
    else:
        assert rollback("m", root=root) == three[2]
    assert serve(root) == "2" and efsstate.models(root=root) == ["m"]
    age(root, *three)
    (gone,) = prune("m", keep=2, root=root)
    assert gone in three[:2]


def test_a_model_published_while_it_is_removed_stays(root, three, put, monkeypatch):
    """Between the last look at its folder and the end of CURRENT."""
    from efsstate.modelstore import pruning

    real, ids = pruning._remove_model, []

    def late(mount, name):
        rename = mount.rename

        def first(*given, **more):
            monkeypatch.undo()
            ids.append(put("3"))
            return rename(*given, **more)

        monkeypatch.setattr(
            type(mount), "rename", lambda self, *given, **more: first(*given, **more)
        )
        return real(mount, name)

    monkeypatch.setattr(pruning, "_remove_model", late)
    remove("m", grace=0, root=root)
    assert ids and serve(root) == "3" and verify("m", root=root) == []


def test_a_model_with_files_of_its_own_is_not_removed(root, three):
    pathlib.Path(root, "models", "m", "mine.txt").write_text("x")
    with pytest.raises(EfsStateError, match=r"mine\.txt: unmanaged: .*move it away"):
        remove("m", grace=0, root=root)
    assert serve(root) == "2"
    pathlib.Path(root, "models", "hand.bin").write_text("x")
    with pytest.raises(ModelNotFound, match="unmanaged"):
        remove("hand.bin", root=root)


def test_a_removal_again_keeps_what_was_active(root, three):
    """The first may have been killed before all labels were gone."""
    activate("m", three[0], label="x", root=root)
    link = place(root, "m", "@x")
    text = os.readlink(link)
    remove("m", root=root)
    os.symlink(text, link)
    remove("m", root=root)
    assert "@x" not in names(root)
    assert rollback("m", root=root) == three[2] and serve(root) == "2"


def test_a_killed_removal_is_finished_by_the_next(root, three):
    import shutil

    for at in range(1, 80):
        copy = f"{root}.{at}"
        shutil.copytree(root, copy, symlinks=True)
        code, *_ = dying(lambda: remove("m", grace=0, root=copy), at)
        if code == 0:
            break
        for above, folders, files in os.walk(copy):
            for name in [*folders, *files]:
                if name.startswith(".tmp-"):
                    os.utime(f"{above}/{name}", (1, 1), follow_symlinks=False)
        try:
            remove("m", grace=0, root=copy)
        except ModelNotFound:
            pass
        prune_rest(copy)
        assert not os.path.exists(f"{copy}/models/m/versions/CURRENT"), at
    assert at > 10


def prune_rest(root):
    try:
        prune("m", keep=1, grace=0, root=root)
    except ModelNotFound:
        pass


def test_a_label_of_a_version_that_is_gone_says_so(root, three):
    """Removed by hand: no prune takes what a label names."""
    activate("m", three[0], label="staging", root=root)
    get = model("m", lambda f: bytes(f.read()), label="staging", check_every=0, root=root)
    assert get() == b"0"
    shutil.rmtree(place(root, "m", three[0]))
    with pytest.raises((EfsStateError, FileNotFoundError), match=three[0]):
        serve(root, label="staging")
    assert get() == b"0"  # what is loaded goes on
    assert serve(root) == "2"
    activate("m", three[1], label="staging", root=root)
    assert serve(root, label="staging") == "1" and get() == b"1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o755, 0o750])
def test_a_user_who_is_neither_root_nor_the_owner(tmp_path, mode):
    """May load what the root's mode lets it read; a change names the right that is missing."""
    import tempfile

    def attempt(function):
        try:
            return "done", repr(function())
        except OSError as error:  # RootError and PermissionError
            return type(error).__name__, str(error)
        except EfsStateError as error:
            return type(error).__name__, str(error)

    (tmp_path / "w").write_text("1")
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as other:
        os.chown(root, 1001, 1001)
        os.chmod(root, mode)
        os.chmod(other, 0o777)
        shutil.copy(tmp_path / "w", f"{other}/w")
        os.chmod(f"{other}/w", 0o644)
        first = publish("m", tmp_path / "w", version="v1", root=root)
        calls = {
            "load": lambda: bytes(model("m", lambda files: files.read(), root=root)()),
            "pinned": lambda: bytes(model("m", lambda f: f.read(), version="v1", root=root)()),
            "list": lambda: [each.id for each in versions("m", root=root)],
            "verify": lambda: verify("m", root=root),
            "dry prune": lambda: prune("m", dry_run=True, root=root),
            "publish": lambda: publish("m", f"{other}/w", root=root),
            "activate": lambda: activate("m", first, label="x", root=root),
            "rollback": lambda: rollback("m", root=root),
            "prune": lambda: prune("m", grace=0, root=root),
            "remove": lambda: remove("m", grace=0, root=root),
        }
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                answers = {name: attempt(function) for name, function in calls.items()}
                os.write(writing, json.dumps(answers).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as file:
            answers = json.loads(file.read())
        os.waitpid(pid, 0)
        readable = mode == 0o755
        for name, (kind, said) in answers.items():
            reads = name in ("load", "pinned", "list", "verify", "dry prune")
            assert (kind == "done") is (reads and readable), (name, kind, said)
            if kind != "done":
                assert root in said, (name, kind, said)
        assert [each.id for each in versions("m", root=root)] == ["v1"]
        assert verify("m", root=root) == []
