"""File and SFTP channels: batches complete or not there, the same again after a crash."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import orjson
import pytest
from confluent_kafka import TopicPartition

from connectors.kafka.client import consumer
from connectors.subscribers.channels import files
from connectors.subscribers.channels.files import MANIFEST, FileChannel, SftpChannel
from connectors.subscribers.guard import Guard
from connectors.subscribers.objects import sample_block, sample_unit
from connectors.subscribers.parcel import AwayError, parcel_of
from connectors.subscribers.places import Mark, read_mark
from connectors.subscribers.secrets import Secrets
from schemas.topology.subscribers import Files, Sftp
from tests.subscribers.kit import LOCAL, TOPOLOGY, Bench, determinant, eventually


def manifests(folder: Path) -> list[dict[str, Any]]:
    """The manifests of a folder; each is checked against its file."""
    found = []
    for path in sorted(folder.glob(f"*{MANIFEST}")):
        manifest = orjson.loads(path.read_bytes())
        data = (folder / manifest["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (manifest["bytes"], manifest["sha256"])
        found.append(manifest)
    return found


def test_batches_by_count_then_by_time_hold_everything_once(bench: Bench) -> None:
    folder = bench.folder / "outbox" / "erp" / "in"
    channel = {"kind": "file", "folder": "erp/in", "format": "ndjson", "records": 10, "every": "2s"}
    bench.subscribe("erp", ["determinants"], channel)
    bench.write("billing.determinants", "Determinant", [determinant(n, "one") for n in range(25)])
    eventually(lambda: sum(manifest["items"] for manifest in manifests(folder)) == 25)
    assert [manifest["items"] for manifest in manifests(folder)] == [10, 10, 5]
    items = [orjson.loads(line)["id"] for m in manifests(folder) for line in (folder / m["file"]).read_bytes().splitlines()]
    assert items == [f"d{n:05}-1" for n in range(25)]
    assert not list(folder.glob(".*")), "nothing half done lies about"
    eventually(lambda: [one["status"] for one in bench.journal("erp")] == ["sent"] * 3)


def test_intervals_and_registers_go_to_files_of_their_own(bench: Bench) -> None:
    folder = bench.folder / "outbox" / "cis"
    bench.subscribe(
        "cis", ["final-intervals", "final-registers"], {"kind": "file", "folder": "cis", "format": "csv", "every": "1s", "compress": "gzip"}
    )
    bench.block(sample_block())
    bench.block(sample_block(registers=True))
    eventually(lambda: len(manifests(folder)) == 2)
    assert {(m["object"], m["file"].endswith(".csv.gz")) for m in manifests(folder)} == {
        ("final-intervals", True),
        ("final-registers", True),
    }


def test_a_batch_of_which_nothing_fits_its_format_is_skipped_once_and_not_tried_again(bench: Bench) -> None:
    bench.subscribe("market", ["final-intervals"], {"kind": "file", "folder": "market", "format": "nem12", "every": "1s"})
    bench.block(sample_block())  # a day of UTC: of no market day there is all
    [told] = eventually(lambda: bench.journal("market"))
    assert (told["status"], told["attempt"]) == ("skipped", 1)
    assert "is not complete here" in told["reason"]
    bench.settled("market")
    assert len(bench.journal("market")) == 1


def test_a_batch_that_was_begun_before_a_crash_is_the_same_batch_after_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies when the file is written and before Kafka knows; more records come before it is back."""
    folder = bench.folder / "outbox" / "erp"
    written = threading.Event()
    original = FileChannel.send

    def dies(self: FileChannel, parcel: Any) -> Any:
        original(self, parcel)
        written.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(files.FileChannel, "send", dies)
    bench.subscribe("erp", ["determinants"], {"kind": "file", "folder": "erp", "records": 3, "every": "1h"})
    bench.write("billing.determinants", "Determinant", [determinant(n, "one") for n in range(3)])
    assert written.wait(120)
    [before] = manifests(folder)
    bench.halt()
    monkeypatch.setattr(files.FileChannel, "send", original)
    bench.write("billing.determinants", "Determinant", [determinant(n, "one") for n in range(3, 6)])
    bench.start()
    eventually(lambda: len(manifests(folder)) == 2)
    first, second = sorted(manifests(folder), key=lambda m: m["source"]["first"])
    assert first == before
    assert [m["items"] for m in (first, second)] == [3, 3]


def test_marks_survive_as_metadata_of_committed_positions(bench: Bench) -> None:
    reading = consumer(bench.kafka, "marks")
    reading.assign([TopicPartition("billing.determinants", 0, 0)])
    reading.commit(offsets=[Mark(3, 7, 9).at(("billing.determinants", 0))], asynchronous=False)
    assert read_mark(reading.committed([TopicPartition("billing.determinants", 0)], 120)[0]) == Mark(3, 7, 9)
    reading.commit(offsets=[TopicPartition("billing.determinants", 0, 4)], asynchronous=False)
    assert read_mark(reading.committed([TopicPartition("billing.determinants", 0)], 120)[0]) is None, "a position of somebody else's"
    reading.close()


def test_a_folder_that_leads_out_of_the_outbox_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "trap").symlink_to(tmp_path)
    channel = FileChannel(Files(folder="trap"), tmp_path / "outbox")
    with pytest.raises(AwayError, match="out of the outbox"):
        channel.send(parcel_of("s", [sample_unit(TOPOLOGY, "determinants")], 1))
    assert {path.name for path in tmp_path.iterdir()} == {"outbox"}


def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = FileChannel(Files(folder="in"), tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(AwayError, match="No space left"):
        channel.send(parcel_of("s", [sample_unit(TOPOLOGY, "determinants")], 1))
    assert not list((tmp_path / "in").iterdir())


class Login(asyncssh.SSHServer):
    """Takes one user, by password or key."""

    keys: Any = None

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("mdh", "p" * 24)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, asyncssh.SSHKey, Path]]:
    """An SFTP server in this process: its port, its key, its folder."""
    key, root, ready = asyncssh.generate_private_key("ssh-ed25519"), tmp_path / "remote", threading.Event()
    root.mkdir()
    loop = asyncio.new_event_loop()
    found: dict[str, Any] = {}

    def factory(channel: Any) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=str(root).encode())

    async def begin() -> None:
        found["server"] = await asyncssh.create_server(Login, "127.0.0.1", 0, server_host_keys=[key], sftp_factory=factory)
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(begin())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(120)
    yield found["server"].get_port(), key, root
    loop.call_soon_threadsafe(found["server"].close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)


def sftp(port: int, key: asyncssh.SSHKey, **changes: Any) -> SftpChannel:
    host_key = key.export_public_key().decode().strip()
    settings = {
        "host": "localhost",
        "port": port,
        "user": "mdh",
        "password": "remote",
        "host_key": host_key,
        "folder": "in/meter",
        "timeout": 120,
    }
    secrets = Secrets(None, {"MDH_SUBSCRIBER_SECRET_REMOTE": "p" * 24, "MDH_SUBSCRIBER_SECRET_WRONG": "q" * 24})
    return SftpChannel(Sftp.model_validate(settings | changes), Guard(LOCAL, lambda *_: ["127.0.0.1"]), secrets)


def test_sftp_puts_file_and_manifest_twice_the_same(server: tuple[int, asyncssh.SSHKey, Path]) -> None:
    port, key, root = server
    parcel = parcel_of("s", [sample_unit(TOPOLOGY, "final-intervals")], 1)
    channel = sftp(port, key, format="cim")
    assert channel.send(parcel) == channel.send(parcel)
    folder = root / "in" / "meter"
    [manifest] = manifests(folder)
    assert (manifest["format"], manifest["delivery"], len(list(folder.iterdir()))) == ("cim", parcel.id, 2)


def test_sftp_trusts_only_the_key_it_was_given_and_says_why_it_is_not_let_in(server: tuple[int, asyncssh.SSHKey, Path]) -> None:
    port, key, root = server
    parcel = parcel_of("s", [sample_unit(TOPOLOGY, "determinants")], 1)
    with pytest.raises(AwayError, match="Host key"):
        sftp(port, asyncssh.generate_private_key("ssh-ed25519")).send(parcel)
    with pytest.raises(AwayError, match=r"(?i)permission denied"):
        sftp(port, key, password="wrong").send(parcel)
    with pytest.raises(AwayError):
        sftp(1, key).send(parcel)
    assert not list(root.iterdir())
