"""The runtime harness, with the real runtime client: it treats a handler as Lambda would."""

import json
import os
import re
import sys
import threading
import time
from http.client import HTTPConnection

import pytest

from efsstate.testing import Function, Throttled, _runtime
from efsstate.testing._sandbox import can_mount

HERE = os.path.dirname(__file__)
pytestmark = pytest.mark.runtime


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid):
    """Return True if the process ends within 30 seconds; SIGKILL takes a moment to arrive."""
    until = time.monotonic() + 30
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pid)


def process(pid):
    """What the kernel says of it: its state, and how often its threads were switched to."""
    switches = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as file:
            switches += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    with open(f"/proc/{pid}/stat") as file:
        return {"state": file.read().rpartition(")")[2].split()[0], "switches": switches}


@pytest.fixture
def function():
    made = []

    def make(handler, **options):
        made.append(Function(f"handlers.{handler}", path=HERE, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    page = os.path.join(HERE, "..", "..", "docs", "harness.md")
    with open(page) as file:
        app, use = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text(app)
    monkeypatch.chdir(tmp_path)
    exec(compile(use, page, "exec"), {})
    assert "REPORT RequestId" in capsys.readouterr().out


def test_a_warm_environment_is_used_again(function):
    f = function("hello")
    first, second = f.invoke({"a": 1}), f.invoke([2])
    assert first.value == {"event": {"a": 1}, "count": 1, "pid": first.environment.pid}
    assert second.value["count"] == 2 and second.value["event"] == [2]
    assert second.environment is first.environment and len(f.environments) == 1
    assert first.init_duration > 0 and second.init_duration is None
    assert first.error is None and not first.timed_out and first.duration > 0


def test_each_environment_has_its_own_process_folder_and_globals(function):
    f = function("hello")
    one, two = f.environment(), f.environment()
    results = [env.invoke() for env in (one, two, one)]
    assert [r.value["count"] for r in results] == [1, 1, 2]
    assert one.pid != two.pid and one.tmp != two.tmp


def test_events_at_once_take_as_many_environments_as_they_need(function, tmp_path):
    f = function("meets", timeout=10)
    results = f.map([{"folder": str(tmp_path), "of": 3, "number": n} for n in range(3)])
    assert len({r.value["pid"] for r in results}) == 3 == len(f.environments)


def test_concurrency_bounds_the_environments(function):
    f = function("hello", concurrency=2)
    results = f.map(range(9))
    assert [r.value["event"] for r in results] == list(range(9))
    assert len(f.environments) <= 2
    assert sum(env.invocations for env in f.environments) == 9


def test_logs_belong_to_their_invocation(function):
    f = function("hello")
    first, second = f.invoke(), f.invoke()
    assert first.logs == f"hello from {first.request_id}\n"
    assert second.logs == f"hello from {second.request_id}\n"


def test_the_variables_and_the_context_are_lambdas(function, tmp_path):
    os.environ["SECRET_OF_THE_TESTER"] = "x"
    try:
        f = function(
            "look", name="shop", memory=512, timeout=5, environment={"EFSSTATE_ROOT": str(tmp_path)}
        )
        result = f.invoke({}, client_context={"custom": {"k": "v"}})
    finally:
        del os.environ["SECRET_OF_THE_TESTER"]
    seen = result.value["environ"]
    assert {
        k: seen[k] for k in seen if k.startswith(("AWS_LAMBDA_FUNCTION", "AWS_REGION", "_HANDLER"))
    } == {
        "AWS_LAMBDA_FUNCTION_NAME": "shop",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_REGION": "us-east-1",
        "_HANDLER": "handlers.look",
    }
    assert seen["EFSSTATE_ROOT"] == str(tmp_path) and "SECRET_OF_THE_TESTER" not in seen
    assert seen["LAMBDA_TASK_ROOT"] == HERE == result.value["cwd"]
    assert seen["_X_AMZN_TRACE_ID"].startswith("Root=1-") and os.path.basename(
        seen["TMPDIR"]
    ) == os.path.basename(result.environment.tmp)
    assert "AWS_LAMBDA_MAX_CONCURRENCY" not in seen
    assert 3000 < result.value["remaining"] <= 5000
    assert result.value["arn"].endswith(":function:shop") and result.value["memory"] == "512"
    assert result.value["client_context"] == {"k": "v"}


def test_an_exception_comes_back_as_lambda_reports_it(function):
    f = function("raises")
    result = f.invoke()
    assert result.value is None and not result.timed_out
    assert (
        result.error["errorType"] == "LookupError"
        and result.error["errorMessage"] == "no such thing"
    )
    assert any("handlers.py" in line for line in result.error["stackTrace"])
    assert "no such thing" in result.logs
    assert f.invoke().environment is result.environment


@pytest.mark.parametrize(
    ("event", "said"), [("exit", "exit status 7"), ("signal", "signal: killed")]
)
def test_a_process_that_goes_away_is_an_exit_error(function, event, said):
    f = function("leaves")
    result = f.invoke(event)
    assert result.error["errorType"] == "Runtime.ExitError" and said in result.error["errorMessage"]
    assert result.logs.startswith("leaving ") and not result.timed_out
    assert gone(int(result.logs.split()[1]))  # and takes what it started with it


def test_a_timeout_kills_the_group_without_a_signal(function):
    f = function("stalls", timeout=1.5)
    f.environment().invoke("ok")  # warm, so that the timeout is all the handler's
    result = f.invoke("stall")
    assert result.timed_out and result.value is None
    assert (
        result.error["errorType"] == "Sandbox.Timedout"
        and "timed out after 1.50 seconds" in result.error["errorMessage"]
    )
    assert (
        result.logs.startswith("child ")
        and "cleaned up" not in result.logs
        and "SIGTERM" not in result.logs
    )
    assert result.duration >= 1.5
    assert gone(int(result.logs.split()[1])) and result.environment.pid is None
    again = f.invoke("ok")  # the same environment: a new process, the same folder
    assert again.environment is result.environment and again.value == ["mark"]
    assert [i.status for i in again.environment.inits] == ["ok", "ok"]


def test_nothing_runs_between_invocations_when_frozen(function):
    """A background thread makes no step and the process uses no CPU until the next event."""
    frozen, warm = (
        function("ticking", freeze=freeze).invoke("start").environment for freeze in (True, False)
    )
    before, before_warm = process(frozen.pid), process(warm.pid)
    time.sleep(0.3)
    assert process(frozen.pid) == before and before["state"] == "T"
    assert process(warm.pid)["switches"] > before_warm["switches"]
    assert frozen.invoke("count").value > 0
    assert process(frozen.pid)["state"] == "T"


def test_an_environment_is_frozen_by_default(function):
    """A thread that must run on between invocations is a fault that the harness shows."""
    environment = function("ticking").invoke("start").environment
    assert process(environment.pid)["state"] == "T"
    assert process(function("hello", max_concurrency=1).invoke().value["pid"])["state"] != "T"


@pytest.mark.parametrize(("managed", "limit"), [(None, 1024), (1, 4096)])
def test_descriptors_are_limited(function, managed, limit):
    f = function("opens", timeout=20, max_concurrency=managed)
    opened = f.invoke(limit + 10).value
    assert limit - 64 < opened["count"] < limit
    assert opened["error"] == "Too many open files"


KILLED = "Runtime exited with error: signal: killed"


@pytest.mark.parametrize("child", [False, True])
def test_memory_is_enforced(function, child):
    """What takes more is killed, with Lambda's error; its children count, and the next is new."""
    f = function("takes", timeout=60, memory=128)
    assert "memory" in f.environment().enforced
    event = {"mb": 200, "seconds": 40, "child": child}
    killed = f.invoke(event)
    assert killed.error["errorType"] == "Runtime.ExitError"
    assert killed.error["errorMessage"].endswith(KILLED)
    assert "Memory Size: 128 MB\tMax Memory Used: 128 MB" in killed.log_stream
    assert f.invoke({"mb": 20, "seconds": 0.2, "child": child}).value == 20
    assert function("takes", timeout=60, memory=512).invoke({**event, "seconds": 0.2}).value == 200


def test_mapped_files_are_no_memory(function):
    """A model that is mapped from /tmp may be larger than the function's memory."""
    f = function("maps", timeout=60, memory=128, ephemeral_storage=256)
    assert f.invoke(200).value == ord("m") * (200 << 20) // 4096


@pytest.mark.skipif(not can_mount(), reason="a limited /tmp needs root rights")
def test_the_size_of_tmp_is_enforced(function):
    """A write beyond it fails as on Lambda, and what was written outlives the process."""
    f = function("fills", timeout=60, ephemeral_storage=16)
    full = f.invoke(20)
    assert full.value == {"error": "No space left on device", "room": 16}
    assert "tmp" in full.environment.enforced
    full.environment.kill()
    assert os.path.getsize(os.path.join(full.environment.tmp, "big")) == 16 << 20
    assert f.invoke(10).environment is full.environment
    other = f.environment().invoke(10)
    assert other.value["error"] is None


def test_a_tmp_that_is_not_limited_is_warned_of(function, monkeypatch):
    """Without root rights a function that writes too much is told so, once."""
    monkeypatch.setattr("efsstate.testing._sandbox.can_mount", lambda: False)
    f = function("fills", timeout=60, ephemeral_storage=16)
    with pytest.warns(UserWarning, match="20 MB were written; Lambda refuses more than 16 MB"):
        result = f.invoke(20)
    assert result.value["error"] is None and f.invoke(20).value["error"] is None
    assert result.environment.enforced == {"memory"}


@pytest.mark.skipif(not can_mount(), reason="a read-only task root needs root rights")
def test_the_task_root_is_read_only(tmp_path):
    """A folder inside it that a variable names is writable all the same."""
    code = "import os\ndef handler(event, context):\n    open(event, 'w').close()\n"
    (tmp_path / "writes.py").write_text(code)
    (tmp_path / "root").mkdir()
    variables = {"EFSSTATE_ROOT": str(tmp_path / "root")}
    with Function("writes.handler", path=tmp_path, environment=variables) as f:
        refused = f.invoke(str(tmp_path / "file"))
        assert "Read-only file system" in refused.error["errorMessage"]
        assert f.invoke(str(tmp_path / "root" / "file")).error is None
    assert sorted(os.listdir(tmp_path)) == ["root", "writes.py"]
    with Function("writes.handler", path=tmp_path, read_only=False) as f:
        assert f.invoke(str(tmp_path / "file")).error is None


def test_an_asynchronous_call_is_tried_again(function):
    """Twice after an error, with one request id, as Lambda does."""
    f = function("fails_first", timeout=5)
    results = f.invoke_async(2)
    assert [each.error is None for each in results] == [False, False, True]
    assert len({each.request_id for each in results}) == 1
    assert len(f.invoke_async(99)) == 3
    assert len(f.invoke_async(99, retries=0)) == 1


def test_an_asynchronous_event_may_come_twice(function):
    """A handler must bear a duplicate; the event has up to 1 MiB."""
    f = function("hello")
    first, second = f.invoke_async({"a": 1}, duplicate=True)
    assert first.request_id == second.request_id
    assert (first.value["count"], second.value["count"]) == (1, 2)
    with pytest.raises(ValueError, match="Lambda takes 1048576"):
        f.invoke_async("x" * 1_100_000)


def test_sigterm_comes_only_with_an_extension(function, monkeypatch):
    """Lambda sends it before an environment ends if an extension is registered, else nothing.

    From Python 3.12 on the runtime client waits in a thread, so that handlers of signals run.
    """
    monkeypatch.setattr(_runtime, "GRACE", 30)  # a busy machine needs more than half a second
    variables = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.13"}
    for extension in (True, False):
        f = function("says_goodbye", extension=extension, environment=variables)
        environment = f.invoke().environment
        assert ("SIGTERM seen" in environment.shut_down()) is extension
        f.environments.clear()


def test_a_busy_function_is_throttled(function, tmp_path):
    """Lambda refuses a call beyond the concurrency; it does not wait."""
    from concurrent.futures import ThreadPoolExecutor

    f = function("meets", timeout=10, concurrency=1, throttle=True)
    event = {"folder": str(tmp_path), "of": 2, "number": 1}
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(f.invoke, event)
        while not (tmp_path / "1").exists():
            time.sleep(0.01)
        with pytest.raises(Throttled, match="Rate Exceeded"):
            f.invoke(event)
        (tmp_path / "2").touch()
        assert waiting.result().error is None


def test_credentials_tracing_and_tenants_are_there(function):
    """Code that looks for them finds what it would find on Lambda."""
    f = function("look")
    seen = f.invoke().value["environ"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_XRAY_DAEMON_ADDRESS"):
        assert seen[name]
    assert seen["AWS_LAMBDA_LOG_FORMAT"] == "Text"
    assert f.invoke(tenant_id="blue").value["tenant"] == "blue"
    managed = function("look", max_concurrency=1).invoke().value["environ"]
    assert managed["AWS_LAMBDA_LOG_FORMAT"] == "JSON"


def test_the_log_stream_has_lambdas_lines(function):
    """START and END around the handler's lines, and a REPORT with what was used."""
    f = function("hello")
    result = f.invoke()
    start, hello, end, report = result.log_stream.splitlines()
    assert start == f"START RequestId: {result.request_id} Version: $LATEST"
    assert hello + "\n" == result.logs
    assert end == f"END RequestId: {result.request_id}"
    assert "Memory Size: 128 MB\tMax Memory Used: " in report
    assert "Init Duration: " in report
    assert 5 < result.max_memory_used < 500
    assert "Init Duration" not in f.invoke().log_stream
    slow = function("stalls", timeout=0.5)
    assert "Status: timeout" in slow.invoke("stall").log_stream
    assert "Status: error\tError Type: LookupError" in function("raises").invoke().log_stream


def test_json_is_strict(function):
    """A NaN in an answer is no JSON, and one in an event is refused."""
    assert function("nan").invoke().value == b'{"value": NaN}'
    with pytest.raises(ValueError, match="JSON compliant"):
        function("hello").invoke({"a": float("nan")})


def test_packages_of_its_own(tmp_path):
    """Only the folder, the standard library and what Lambda's Python brings are importable."""
    (tmp_path / "app.py").write_text(
        "import importlib.util as u\n"
        "def handler(event, context):\n    return [n for n in event if u.find_spec(n)]\n"
    )
    packages = tmp_path / "build"
    (packages / "mine").mkdir(parents=True)
    (packages / "mine" / "__init__.py").write_text("")
    with Function("app.handler", path=tmp_path, packages=packages) as f:
        result = f.invoke(["mine", "json", "awslambdaric", "pytest", "hypothesis"])
    assert result.value == ["mine", "json", "awslambdaric"], result


def test_managed_instances_have_their_own_limits():
    """They have at least 2,048 MB."""
    with pytest.raises(ValueError, match="2048"):
        Function("a.b", memory=512, max_concurrency=2)


def test_an_environment_can_be_frozen_during_an_invocation(function, tmp_path):
    f = function("meets", timeout=10, freeze=False)
    one, two = f.environment(), f.environment()
    for env in (one, two):
        env.invoke({"folder": str(tmp_path), "of": 0, "number": "x"})
    one.freeze()
    f.environments.remove(two)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(one.invoke, {"folder": str(tmp_path), "of": 1, "number": 1})
        time.sleep(0.3)
        assert not waiting.done()
        one.thaw()
        assert waiting.result().value["count"] == 2
    two.close()


def test_a_killed_environment_starts_anew(function):
    f = function("hello")
    first = f.invoke()
    first.environment.kill()
    assert gone(first.value["pid"])
    second = f.environments[0].invoke()
    assert second.value["count"] == 1 and second.init_duration > 0


def test_a_dead_process_leaves_no_thread_of_the_api_waiting(function):
    f = function("hello")
    environment = f.invoke().environment
    before = set(threading.enumerate())
    for _ in range(4):
        environment.kill()
        environment.invoke()
        assert environment.pid is not None
    until = time.monotonic() + 30
    while len(set(threading.enumerate()) - before) > 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert (
        len(set(threading.enumerate()) - before) <= 3
    )  # the one that runs: its two watches, its connection


def test_an_init_error_is_reported_with_its_log():
    with Function("broken_init.handler", path=HERE) as f:
        result = f.invoke()
    assert (
        result.error["errorType"] == "RuntimeError"
        and result.error["errorMessage"] == "no configuration"
    )
    inits = result.environment.inits
    assert [i.status for i in inits] == [
        "error",
        "error",
    ]  # in the init phase, then again in the invocation
    assert "about to break" in inits[0].logs and "about to break" in result.logs


def test_a_missing_module_and_a_missing_handler_are_init_errors():
    with Function("nowhere.handler", path=HERE) as f, Function("handlers.nothing", path=HERE) as g:
        assert f.invoke().error["errorType"] == "Runtime.ImportModuleError"
        assert g.invoke().error["errorType"] == "Runtime.HandlerNotFound"


def test_a_slow_init_is_run_again_in_the_first_invocation():
    with Function("slow_init.handler", path=HERE, init_timeout=1, timeout=10) as f:
        result = f.invoke()
        assert result.value == "here"
        assert [i.status for i in result.environment.inits] == ["timeout", "ok"]
        assert result.init_duration == result.environment.inits[1].duration


def test_an_init_that_is_slow_twice_is_a_timeout(tmp_path):
    (tmp_path / "stuck.py").write_text("import time\ntime.sleep(60)\n")
    with Function("stuck.handler", path=tmp_path, init_timeout=0.5, timeout=0.5) as f:
        result = f.invoke()
        assert result.timed_out and result.environment.pid is None
    assert Function("a.b").invoke.__self__._settings.init_timeout == 10  # what Lambda gives it


def test_an_interpreter_that_is_not_there_is_said(function):
    f = function("hello", python="/nowhere/python")
    assert "/nowhere/python" in f.invoke().error["errorMessage"]


def test_managed_instances_run_an_event_in_each_process(function, tmp_path):
    f = function("meets", timeout=20, max_concurrency=4)
    results = f.map([{"folder": str(tmp_path), "of": 4, "number": n} for n in range(4)])
    assert [r.error for r in results] == [None] * 4
    assert len(f.environments) == 1
    assert len({r.value["pid"] for r in results}) == 4  # each with its own globals
    assert {r.value["parent"] for r in results} == {f.environments[0].pid}
    assert {r.value["count"] for r in results} == {1}
    assert len({r.value["tmp"] for r in results}) == 1


def test_managed_instances_run_on_after_a_timeout(function):
    f = function("worker", timeout=1, max_concurrency=2)
    f.invoke("warm")
    slow, quick = f.map(["slow", "quick"])
    assert slow.timed_out and quick.error is None
    until = time.monotonic() + 60
    while (
        not os.path.exists(os.path.join(slow.environment.tmp, "went on"))
        and time.monotonic() < until
    ):
        time.sleep(0.05)
    assert f.environments[0].invoke("look").value["files"] == ["went on"]


def test_managed_instances_survive_the_death_of_one_process(function):
    f = function("worker", timeout=10, max_concurrency=2)
    died = f.invoke("die")
    assert died.error["errorType"] == "Runtime.ExitError" and died.duration < 5
    alive = f.environments[0].invoke("quick")
    assert alive.error is None and len(f.environments) == 1


def test_dead_managed_instances_start_once(function, tmp_path):
    f = function("meets", timeout=20, max_concurrency=3)
    environment = f.environment()
    environment.kill()
    results = f.map([{"folder": str(tmp_path), "of": 3, "number": n} for n in range(3)])
    assert len({r.value["pid"] for r in results}) == 3
    assert f.environments == [environment] and len(environment.inits) == 2


def test_a_response_or_event_over_six_megabytes_is_refused(function):
    f = function("big", timeout=10)
    assert f.invoke(5_000_000).value == "x" * 5_000_000
    refused = f.invoke(6_300_000)
    assert refused.error["errorType"] == "Function.ResponseSizeTooLarge"
    assert "413" in refused.logs  # the client was told, too
    with pytest.raises(ValueError, match="bytes; Lambda takes"):
        f.invoke("x" * 6_300_000)
    assert f.invoke(1).value == "x"  # the refused event left no environment busy


def test_what_is_not_json_comes_back_as_bytes(function):
    assert function("raw").invoke().value == b"\x00\xff"


def test_requests_that_the_runtime_api_does_not_know_are_refused(function):
    env = function("hello").environment()
    env.invoke()
    connection = HTTPConnection(env._runtime.address)
    for method, path, status in [
        ("GET", "/2018-06-01/runtime/elsewhere", 404),
        ("POST", "/2018-06-01/runtime/invocation/unknown/response", 400),
        ("POST", "/elsewhere", 404),
    ]:
        connection.request(method, path, body="{}")
        answer = connection.getresponse()
        assert answer.status == status and "errorType" in json.loads(answer.read())
    connection.close()


def test_closing_ends_an_invocation_that_runs(function):
    from concurrent.futures import ThreadPoolExecutor

    f = function("stalls", timeout=30)
    environment = f.environment()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(environment.invoke, "stall")
        while not os.path.exists(os.path.join(environment.tmp, "mark")):
            time.sleep(0.01)
        environment.close()
        assert running.result().error["errorType"] == "Runtime.ExitError"
    assert "closed" in environment.invoke("ok").error["errorMessage"]


def test_nothing_is_left_behind(function):
    """Processes, folders, sockets and threads of closed environments are gone."""
    f = function("stalls", timeout=20)
    environments = [f.environment() for _ in range(3)]
    pids = [env.invoke("ok").environment.pid for env in environments]
    folders = [os.path.dirname(env.tmp) for env in environments]
    before = len(os.listdir("/proc/self/fd"))
    f.close()
    assert all(gone(pid) for pid in pids) and not any(map(os.path.exists, folders))
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_tester_that_is_killed_leaves_no_frozen_process(tmp_path):
    """The kernel hangs up on the stopped group; a running process finds its Runtime API gone."""
    import signal
    import subprocess

    script = (
        "import sys; from efsstate.testing import Function, Throttled\n"
        f"f = Function('handlers.hello', path={HERE!r}, freeze=True)\n"
        f"g = Function('handlers.hello', path={HERE!r})\n"
        "print(f.invoke().value['pid'], g.invoke().value['pid'], flush=True)\n"
        "sys.stdin.read()\n"
    )
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p), TMPDIR=str(tmp_path)
    )
    tester = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        process_group=0,
    )
    pids = [int(word) for word in tester.stdout.readline().split()]
    assert all(map(alive, pids))
    tester.send_signal(signal.SIGKILL)
    tester.communicate()
    assert all(map(gone, pids))


def test_the_core_does_not_import_the_harness():
    import subprocess

    code = (
        "import sys, efsstate\n"
        "assert not [m for m in sys.modules if m.startswith('efsstate.testing')]"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
