"""Adapters with the newest version of their framework and the one before, each in a venv."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import efsstate

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OURS = ("pytest", "filelock", "cachetools", "msgpack")
ASYNC = ("pytest-asyncio", "pytest-mock", "setuptools<81")  # aiocache's tests need them
# What is installed, the lowest Python, the tests, and how many of them pass.
VERSIONS = [
    (["django==6.1.3"], (3, 12), "test_django.py", 12),
    (["django==5.1.15"], (3, 11), "test_django.py", 12),
    (["dogpile.cache==1.5.0"], (3, 11), "test_dogpile.py", 42),
    (["dogpile.cache==1.4.1"], (3, 11), "test_dogpile.py", 42),
    (["cachelib==0.17.0", "flask-caching==2.5.1"], (3, 11), "test_cachelib.py", 18),
    (["flask-caching==2.5.0"], (3, 11), "test_cachelib.py", 18),
    (["cachelib==0.16.1"], (3, 11), "test_cachelib.py", 16),
    (["joblib==1.6.0", "numpy"], (3, 11), "test_joblib.py", 16),
    (["joblib==1.5.3", "numpy"], (3, 11), "test_joblib.py", 16),
    (["aiocache==0.12.3", *ASYNC], (3, 11), "test_aiocache.py", 14),
    (["aiocache==0.12.2", *ASYNC], (3, 11), "test_aiocache.py", 14),
    (["fsspec==2026.9.0"], (3, 11), "test_fsspec.py", 27),
    (["fsspec==2026.7.0"], (3, 11), "test_fsspec.py", 27),
    (["fsspec==2026.9.0"], (3, 11), "fsspec_suite.py", 137),
    (["fsspec==2026.7.0"], (3, 11), "fsspec_suite.py", 137),
]


def interpreter(lowest):
    if sys.version_info >= lowest:
        return sys.executable
    for minor in range(14, lowest[1] - 1, -1):
        path = shutil.which(f"python3.{minor}")
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return pytest.skip(f"needs Python {lowest[0]}.{lowest[1]}")


@pytest.fixture
def suite(tmp_path):
    """A function that runs tests in a venv with `requirements`, and returns (passed, output)."""

    def run(requirements, tests, *options, lowest=(3, 11), **variables):
        venv, path = tmp_path / "venv", tmp_path / "path"
        subprocess.run([interpreter(lowest), "-m", "venv", venv], check=True)
        pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python"]
        install = subprocess.run(
            [*pip, "install", "-q", *OURS, *requirements], capture_output=True, text=True
        )
        if install.returncode:
            pytest.skip(f"can't install {requirements}: {install.stderr[-300:]}")
        path.mkdir()  # of efsstate alone: beside it may lie other versions of the frameworks
        (path / "efsstate").symlink_to(os.path.dirname(efsstate.__file__))
        process = subprocess.run(
            [
                venv / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider",
                "-m", "heavy or not heavy", "-W", "default::DeprecationWarning", *options,
                f"tests/adapters/{tests}",
            ],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(path), **variables},
            capture_output=True, text=True,
        )  # fmt: skip
        passed = re.search(r"(\d+) passed", process.stdout)
        return int(passed[1]) if passed else 0, process.stdout + process.stderr

    return run


def test_the_page_lists_these_versions():
    path = os.path.join(ROOT, "docs", "adapters.md")
    if not os.path.exists(path):
        pytest.skip("only in the source tree")
    with open(path) as file:
        rows = [line.replace("`", "") for line in file if line.startswith("| `")]
    for requirements, _, tests, passed in VERSIONS:
        name, version = requirements[-1 if "flask" in requirements[-1] else 0].split("==")
        row = f"| {name} {version} | {tests} | {passed} |\n"
        assert row in rows, row


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("requirements", "lowest", "tests", "expected"),
    VERSIONS,
    ids=[f"{requirements[0]}-{tests}".replace("==", "-") for requirements, _, tests, _ in VERSIONS],
)
def test_this_version(requirements, lowest, tests, expected, suite, tmp_path):
    options = (
        ["-o", "asyncio_default_fixture_loop_scope=function"] if ASYNC[0] in requirements else []
    )
    passed, output = suite(
        requirements, tests, *options, lowest=lowest, EFSSTATE_ROOT=str(tmp_path)
    )
    assert "failed" not in output and "error" not in output.splitlines()[-1], output
    assert passed == expected, output


@pytest.mark.heavy
@pytest.mark.parametrize("version", ["2026.9.0", "2026.7.0"])
def test_s3_below_fsspec(version, suite, tmp_path):
    """Read under fsspec's tests, with s3fs on moto; s3fs itself fails the one left out."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        variables = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "EFSSTATE_ROOT": str(tmp_path),
            "SUITE_BUCKET": "suite",
        }
        client = boto3.client(
            "s3", endpoint_url=variables["AWS_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip
        client.create_bucket(Bucket="suite")
        client.close()
        passed, output = suite(
            [f"s3fs=={version}"], "fsspec_suite.py",
            "-k", "(TestGet or TestOpen or TestPipe) and not test_open_exclusive", **variables,
        )  # fmt: skip
    finally:
        server.stop()
    assert "failed" not in output and passed == 46, output
