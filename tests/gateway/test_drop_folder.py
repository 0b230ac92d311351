"""The drop folder: complete files are published once, whatever happens in between, and moved aside."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from connectors.head_end.drop_folder import DropFolder
from connectors.head_end.publish import Publisher, UnavailableError, Writer
from connectors.kafka.client import KafkaSettings
from tests.brokers import read_all
from tests.gateway.conftest import LIMIT
from tests.patience import eventually

CSV = b"device,channel,unit,seconds,start,value\nm1,1,kWh,1800,2026-01-01T00:00:00Z,0.5\n"


@pytest.fixture
def folder(tmp_path: Path, writer: Writer) -> DropFolder:
    return DropFolder(tmp_path / "drop", Publisher(writer, "hes.reads", max_payload_bytes=LIMIT))


def tree(folder: DropFolder) -> list[str]:
    return sorted(str(p.relative_to(folder.folder)) for p in folder.folder.rglob("*") if p.is_file() or p.is_symlink())


def test_a_file_is_taken_when_it_has_stood_still(folder: DropFolder, kafka: KafkaSettings) -> None:
    file = folder.folder / "a.csv"
    file.write_bytes(CSV[:30])
    assert folder.look() == []
    file.write_bytes(CSV)
    assert folder.look() == []
    (payload,) = folder.look()
    assert tree(folder) == ["done/a.csv"]
    (record,) = read_all(kafka, "hes.reads")
    assert record.value() == CSV
    assert dict(record.headers())["id"] == payload.encode()
    assert dict(record.headers())["name"] == b"a.csv"
    assert record.key() == b"drop"


def test_unfinished_and_hidden_files_are_left_alone(folder: DropFolder) -> None:
    names = ["a.csv.part", "b.tmp", ".hidden", "c.PART"]
    for name in names:
        (folder.folder / name).write_bytes(CSV)
    assert folder.look() == folder.look() == []
    assert tree(folder) == sorted(names)
    (folder.folder / "a.csv.part").rename(folder.folder / "a.csv")
    folder.look()
    assert len(folder.look()) == 1


def test_a_folder_below_names_the_source(folder: DropFolder, kafka: KafkaSettings) -> None:
    (folder.folder / "hes-1").mkdir()
    (folder.folder / "hes-1" / "a.csv").write_bytes(CSV)
    folder.look()
    folder.look()
    assert [r.key() for r in read_all(kafka, "hes.reads")] == [b"hes-1"]
    assert tree(folder) == ["done/hes-1--a.csv"]


def test_after_a_crash_between_publishing_and_moving_the_payload_is_the_same(folder: DropFolder, kafka: KafkaSettings) -> None:
    (folder.folder / "a.csv").write_bytes(CSV)
    folder.look()
    first = folder.look()
    (folder.folder / "done" / "a.csv").rename(folder.folder / "a.csv")
    restarted = DropFolder(folder.folder, folder.publisher)
    restarted.look()
    assert restarted.look() == first
    assert {dict(r.headers())["id"] for r in read_all(kafka, "hes.reads")} == {first[0].encode()}
    (folder.folder / "b.csv").write_bytes(CSV)
    restarted.look()
    assert restarted.look() != first, "another name is another payload"


def test_the_same_name_again_does_not_overwrite_what_is_done(folder: DropFolder) -> None:
    for content in (CSV, CSV + CSV):
        (folder.folder / "a.csv").write_bytes(content)
        folder.look()
        folder.look()
    assert len(tree(folder)) == 2
    assert all(name.startswith("done/a.csv") for name in tree(folder))


def test_large_files_go_in_parts(folder: DropFolder, kafka: KafkaSettings) -> None:
    header, row = CSV.splitlines(keepends=True)
    (folder.folder / "a.csv").write_bytes(header + row * 3000)
    folder.look()
    ids = folder.look()
    records = read_all(kafka, "hes.reads")
    assert [dict(r.headers())["id"].decode() for r in records] == ids
    assert [dict(r.headers())["name"] for r in records] == [b"a.csv#%d" % n for n in range(1, len(ids) + 1)]
    assert b"".join(r.value().removeprefix(header) for r in records) == row * 3000


def test_files_that_can_never_be_taken_are_put_aside_with_the_reason(folder: DropFolder, tmp_path: Path) -> None:
    (folder.folder / "empty.csv").touch()
    (folder.folder / "large.json").write_bytes(b"{" + b" " * LIMIT + b"}")
    secret = tmp_path / "secret"
    secret.write_text("not for the hub")
    (folder.folder / "link.csv").symlink_to(secret)
    os.mkfifo(folder.folder / "pipe.csv")
    assert folder.look() == folder.look() == []
    moved = [f"failed/{file}{end}" for file in ("empty.csv", "large.json", "link.csv", "pipe.csv") for end in ("", ".reason.txt")]
    assert [str(p.relative_to(folder.folder)) for p in sorted(folder.folder.rglob("*/*"))] == moved
    assert "empty" in (folder.folder / "failed" / "empty.csv.reason.txt").read_text()
    assert str(LIMIT) in (folder.folder / "failed" / "large.json.reason.txt").read_text()
    assert secret.read_text() == "not for the hub"


def test_files_wait_while_kafka_is_away(tmp_path: Path) -> None:
    writer = Writer(KafkaSettings(bootstrap="127.0.0.1:1"), max_bytes=LIMIT, timeout=0.5)
    folder = DropFolder(tmp_path / "drop", Publisher(writer, "hes.reads", max_payload_bytes=LIMIT))
    (folder.folder / "a.csv").write_bytes(CSV)
    folder.look()
    with pytest.raises(UnavailableError):
        folder.look()
    assert tree(folder) == ["a.csv"]
    with pytest.raises(UnavailableError):
        folder.look()
    writer.close(0)


def test_it_watches_until_it_is_stopped(folder: DropFolder) -> None:
    folder.every = 0.05
    stop = threading.Event()
    thread = threading.Thread(target=folder.run, args=(stop,))
    thread.start()
    (folder.folder / "a.csv").write_bytes(CSV)
    eventually(lambda: tree(folder) == ["done/a.csv"])
    stop.set()
    thread.join(60)
    assert tree(folder) == ["done/a.csv"]
    assert not thread.is_alive()
