"""The runtime harness, with the real runtime client: what it says of a handler is what Lambda would do."""

import json
import os
import sys
import threading
import time
from http.client import HTTPConnection

import pytest

from efsstate.testing import Function

HERE = os.path.dirname(__file__)
pytestmark = pytest.mark.runtime


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid):
    """Whether the process ends within two seconds; SIGKILL takes a moment to arrive in an orphan."""
    until = time.monotonic() + 2
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


def test_concurrency_bounds_the_environments_and_further_events_wait(function):
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
    assert (
        seen["_X_AMZN_TRACE_ID"].startswith("Root=1-") and seen["TMPDIR"] == result.environment.tmp
    )
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


def test_a_timeout_kills_the_whole_group_without_a_signal_that_python_sees(function):
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


def test_an_environment_can_be_frozen_in_the_middle_of_an_invocation(function, tmp_path):
    f = function("meets", timeout=10)
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
    until = time.monotonic() + 5
    while len(set(threading.enumerate()) - before) > 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert (
        len(set(threading.enumerate()) - before) <= 2
    )  # the one that runs: its watch, its connection


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


def test_an_init_that_takes_too_long_is_run_again_in_the_first_invocation():
    with Function("slow_init.handler", path=HERE, init_timeout=1, timeout=10) as f:
        result = f.invoke()
        assert result.value == "here"
        assert [i.status for i in result.environment.inits] == ["timeout", "ok"]
        assert result.init_duration == result.environment.inits[1].duration


def test_an_init_that_takes_too_long_in_the_invocation_too_is_a_timeout(tmp_path):
    (tmp_path / "stuck.py").write_text("import time\ntime.sleep(60)\n")
    with Function("stuck.handler", path=tmp_path, init_timeout=0.5, timeout=0.5) as f:
        result = f.invoke()
        assert result.timed_out and result.environment.pid is None
    assert Function("a.b").invoke.__self__._settings.init_timeout == 10  # what Lambda gives it


def test_an_interpreter_that_is_not_there_is_said(function):
    f = function("hello", python="/nowhere/python")
    assert "/nowhere/python" in f.invoke().error["errorMessage"]


def test_managed_instances_run_one_event_in_each_of_several_processes(function, tmp_path):
    f = function("meets", timeout=20, max_concurrency=4)
    results = f.map([{"folder": str(tmp_path), "of": 4, "number": n} for n in range(4)])
    assert [r.error for r in results] == [None] * 4
    assert len(f.environments) == 1
    assert len({r.value["pid"] for r in results}) == 4  # each with its own globals
    assert {r.value["parent"] for r in results} == {f.environments[0].pid}
    assert {r.value["count"] for r in results} == {1}
    assert {r.value["tmp"] for r in results} == {f.environments[0].tmp}


def test_managed_instances_answer_a_timeout_but_let_the_code_run_on(function):
    f = function("worker", timeout=1, max_concurrency=2)
    f.invoke("warm")
    slow, quick = f.map(["slow", "quick"])
    assert slow.timed_out and quick.error is None
    until = time.monotonic() + 10
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


def test_managed_instances_start_once_however_many_events_find_them_dead(function, tmp_path):
    f = function("meets", timeout=20, max_concurrency=3)
    environment = f.environment()
    environment.kill()
    results = f.map([{"folder": str(tmp_path), "of": 3, "number": n} for n in range(3)])
    assert len({r.value["pid"] for r in results}) == 3
    assert f.environments == [environment] and len(environment.inits) == 2


def test_a_response_over_six_megabytes_is_refused_and_so_is_an_event(function):
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
    connection = HTTPConnection(env._runtime.api.address)
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
        "import sys; from efsstate.testing import Function\n"
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

    code = "import sys, efsstate; assert not [m for m in sys.modules if m.startswith('efsstate.testing')]"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
