"""S3 on loopback: moto's server, and for each test a bucket of its own; and an invocation's end."""

import time

import boto3
import pytest
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="module")
def moto_url():
    """The address of moto's server."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(moto_url, tmp_path, monkeypatch):
    """A client with a `bucket` of the test's own; the function's environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "EFSSTATE_ROOT": str(tmp_path / "root"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "root").mkdir()
    client = boto3.client("s3")
    client.bucket = f"b{time.time_ns()}"
    client.create_bucket(Bucket=client.bucket)
    yield client
    client.close()


class Context:
    """An invocation with so many seconds left."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self):
        return int(1000 * max(0, self.end - time.monotonic()))
