"""The data directory: one hub at a time, free ports, room on the disk; each problem one clear line."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from connectors.embedded import EmbeddedError
from connectors.embedded.place import HubState, Place, Port, read_state


def state(root: Path, pid: int) -> HubState:
    return HubState(pid, "http://127.0.0.1:8080", "127.0.0.1:9092", str(root), processes={"hub": 1})


def test_a_second_hub_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    first, second = Place(tmp_path), Place(tmp_path)
    first.take()
    first.publish(state(tmp_path, os.getpid()))
    with pytest.raises(EmbeddedError) as caught:
        second.take()
    assert str(caught.value) == (
        f"another hub runs on {tmp_path} (process {os.getpid()}, http://127.0.0.1:8080): stop it or name another --data-dir"
    )
    assert read_state(tmp_path) == state(tmp_path, os.getpid())
    first.leave()
    assert read_state(tmp_path) is None
    second.take()
    second.leave()


def test_what_a_killed_hub_left_is_not_believed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.take()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    place.publish(state(tmp_path, child))
    assert read_state(tmp_path) is None
    (tmp_path / "run" / "hub.json").write_text("{")
    assert read_state(tmp_path) is None
    place.leave()


def test_a_directory_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"cannot use .*file as data directory: "):
        Place(tmp_path / "file").take()


def test_a_full_disk_is_seen(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.room(1) is None
    assert "nearly full" in (place.room(1 << 60) or "")


def test_a_taken_port_is_named_with_its_option() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"^port {port} for the gateway is taken: .* another --port$"):
            Port.claim(port, "the gateway", "--port")
        assert Port(port).number != port


def test_a_kept_port_is_for_who_names_it_and_given_to_nobody_else() -> None:
    kept = Port.claim(0, "the gateway", "--port")
    assert Port(kept.number).number == kept.number, "who keeps it does not listen"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", kept.number))
    with socket.create_server(("127.0.0.1", kept.number)) as child, socket.create_connection(child.getsockname()):
        assert child.accept()
    others = [Port() for _ in range(300)]
    assert kept.number not in {other.number for other in others}
