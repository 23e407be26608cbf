"""The publisher takes a repository of a hub: a token by its secret's name, in many calls."""

import os
import time

import boto3
import pytest
from tests.modelstore.hub_server import TOKEN, Hub, Repository, point_client_at
from tests.s3 import Context

import efsstate
from efsstate import EfsStateError, publisher, versions
from efsstate.modelstore import hub as hubs
from efsstate.modelstore import reader

WEIGHTS = os.urandom(2 << 20)


@pytest.fixture
def hub(s3, monkeypatch, tmp_path):
    """A hub with a gated repository; `s3` sets the function's environment."""
    server = Hub()
    files = {"config.json": b"{}", "model.safetensors": WEIGHTS}
    server.repositories["org/net"] = Repository(files, gated=True)
    point_client_at(server, monkeypatch, tmp_path)
    yield server
    server.close()


@pytest.fixture
def secret():
    """Names a secret with this text."""

    def create(text):
        client = boto3.client("secretsmanager")
        name = f"token-{time.time_ns()}"
        client.create_secret(Name=name, SecretString=text)
        client.close()
        return name

    return create


def test_a_gated_repository_by_the_secret_of_its_token(hub, secret, capsys):
    event = {"hub": "org/net@main", "model": "net", "secret": secret(TOKEN + "\n")}
    answer = publisher.handler(event, Context(60))
    assert answer["finished"] and answer["bytes"] == answer["total"] == len(WEIGHTS) + 2
    assert answer["revision"] == hub.repositories["org/net"].commit
    assert [each.id for each in versions("net")] == [answer["version"]]
    assert efsstate.verify("net") == []
    assert TOKEN not in capsys.readouterr().out


def test_it_ends_before_the_deadline_and_continues(hub, secret, monkeypatch):
    monkeypatch.setattr(reader, "RANGE", 64 << 10)
    real = hubs.Repository.read_into

    def slow(self, file, view, offset):
        time.sleep(0.25)
        real(self, file, view, offset)

    monkeypatch.setattr(hubs.Repository, "read_into", slow)
    event = {"hub": "org/net", "model": "net", "secret": secret(TOKEN)}
    answers = [publisher.handler(event, Context(3.5))]
    while not answers[-1]["finished"]:
        assert len(answers) < 12
        answers.append(publisher.handler(event, Context(3.5)))
    assert len(answers) > 1 and 0 < answers[0]["bytes"] < answers[0]["total"]
    assert efsstate.verify("net") == []


def test_too_little_time_is_said(hub, secret, monkeypatch):
    monkeypatch.setattr(hubs.Repository, "read_into", lambda *_: time.sleep(9))
    event = {"hub": "org/net", "model": "net", "secret": secret(TOKEN)}
    with pytest.raises(EfsStateError, match="sufficed for no byte"):
        publisher.handler(event, Context(2.8))


def test_what_is_wrong_with_the_secret_is_said(hub, secret):
    event = {"hub": "org/net", "model": "net"}
    with pytest.raises(EfsStateError, match="it is gated"):
        publisher.handler(event, Context(60))
    with pytest.raises(EfsStateError, match="secretsmanager:GetSecretValue"):
        publisher.handler({**event, "secret": "none"}, Context(60))
    for text in ("{}", '{"token": "x"}', " "):
        with pytest.raises(EfsStateError, match="must be the hub's token"):
            publisher.handler({**event, "secret": secret(text)}, Context(60))
