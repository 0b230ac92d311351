"""``mdh up``: what stands in its way is one line; interrupted, it stops cleanly and goes on from its directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from connectors.embedded.place import Port, read_state
from mdh.commands.up import Hub
from mdh.errors import UsageError
from tests.patience import eventually


def mdh(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mdh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def complains(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that refused."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.strip().splitlines()[-1:]
    assert line.startswith("mdh: ")
    assert "Traceback" not in done.stderr
    return line


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = complains(mdh("up", "--data-dir", str(tmp_path), "--port", str(port)))
    assert line == f"mdh: port {port} for the gateway is taken: stop what uses it or give another --port"


def test_a_broker_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    nobody = Port()
    address = f"127.0.0.1:{nobody.number}"
    line = complains(mdh("up", "--data-dir", str(tmp_path), "--port", "0", "--broker", address))
    assert line == f"mdh: no Kafka broker answers at {address}"


def test_a_wrong_topology_is_told_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text("topics: 7\n")
    done = mdh("up", "--data-dir", str(tmp_path / "data"), "--topology", str(file))
    assert done.returncode == 2
    assert f"{file}:1: topics: must be" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_data_directory_in_use_is_one_line(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    hub.place.take()
    try:
        assert f"another hub runs on {tmp_path}" in complains(mdh("up", "--data-dir", str(tmp_path), "--port", "0"))
    finally:
        hub.place.leave()


GATEWAY = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


class LightHub(Hub):
    """A hub whose gateway and workers are stand-ins: everything else is real."""

    def _hub_process(self) -> Any:
        return self._child("hub", 1, [sys.executable, "-c", GATEWAY, str(self.port)])

    def _worker_process(self, index: int, name: str, *agents: str) -> Any:
        return self._child(name, 2, [sys.executable, "-c", "import time; time.sleep(600)"])

    def _child(self, name: str, stage: int, command: list[str]) -> Any:
        from connectors.embedded.supervisor import Child

        return Child(name, lambda: command, stage=stage, gate=self._broker_away)


@pytest.fixture
def light(tmp_path: Path) -> Iterator[LightHub]:
    hub = LightHub(tmp_path / "data", workers=2)
    yield hub
    hub.stop()


@pytest.mark.broker
def test_the_state_file_tells_others_where_the_hub_is_and_goes_with_it(light: LightHub) -> None:
    with light:
        expected = {"kafka", "hub", "worker-0", "worker-1", "worker-insights", "worker-office"}
        state = eventually(lambda: (told := read_state(light.place.root)) and set(told.processes) == expected and told)
        assert (state.pid, state.url, state.broker) == (os.getpid(), light.url, light.broker)
        assert urllib.request.urlopen(state.url, timeout=120).status == 200

        os.kill(state.processes["worker-1"], signal.SIGKILL)
        before = state.processes["worker-1"]
        eventually(lambda: (now := read_state(light.place.root)) and now.processes.get("worker-1") not in (None, before))
        light.wait(0.1)
    assert read_state(light.place.root) is None
    assert not any(psutil.pid_exists(pid) for pid in state.processes.values())


@pytest.mark.broker
def test_topics_are_those_of_the_topology_and_outlive_the_hub(light: LightHub) -> None:
    from confluent_kafka.admin import AdminClient

    from schemas.topology import load_topology

    for _ in range(2):
        with light:
            topics = AdminClient({"bootstrap.servers": light.broker}).list_topics(timeout=60).topics
            assert set(load_topology().topics) <= set(topics)
        light = LightHub(light.place.root)


@pytest.mark.broker
def test_a_gateway_that_cannot_live_ends_the_hub_with_its_words(light: LightHub) -> None:
    words = "import sys; sys.stderr.write('mdh: store: cannot open it\\n'); sys.exit(2)"
    light._hub_process = lambda: light._child("hub", 1, [sys.executable, "-c", words])  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=r"^hub: store: cannot open it$"), light:
        pass
    assert light.supervisor.processes() == {}
    light.place.take()  # it was given free


LIGHT_UP = """
import sys
import mdh.commands.up as up
from tests.embedded.test_up import LightHub
up.Hub = LightHub
from mdh.cli import main
sys.argv[0] = "mdh"
main()
"""


@pytest.mark.broker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_cleanly_with_status_0(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", LIGHT_UP, "up", "--data-dir", str(tmp_path / "data"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    shown = [process.stdout.readline() for _ in range(5)]
    state = read_state(tmp_path / "data")
    assert state, process.stderr and process.stderr.read()
    assert shown[0] == f"hub      {state.url}\n"
    assert shown[-1] == f"data     {tmp_path / 'data'}\n"
    children = [psutil.Process(pid) for pid in state.processes.values()]
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert out == ""
    assert err.splitlines()[-1] == "stopped"
    assert not any(child.is_running() for child in children)
    assert read_state(tmp_path / "data") is None


@pytest.mark.broker
def test_interrupted_while_starting_it_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIGHT_UP, "up", "--data-dir", str(tmp_path / "data"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    while "starting Kafka" not in (line := process.stderr.readline()):
        assert line, "it ended before it started Kafka"
    children = eventually(lambda: psutil.Process(process.pid).children(recursive=True))
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert out == ""
    assert not any(child.is_running() for child in children)
