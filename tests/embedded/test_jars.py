"""The jar lock: what is used is what was locked, and whoever breaks it is named."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from connectors.embedded import EmbeddedError, jars
from connectors.embedded.jars import Jar, JarLock, class_path

BODY = b"a jar"
GOOD = Jar("org.example:thing:1.0", hashlib.sha256(BODY).hexdigest())
LOCK = JarLock("9.9", (GOOD,))


class FakeRemote:
    """Stands for jgo: hands out one body for every coordinate."""

    def __init__(self, folder: Path, body: bytes | Exception) -> None:
        self.folder, self.body, self.fetched = folder, body, 0

    def create_dependency(self, coordinate: str) -> SimpleNamespace:
        return SimpleNamespace(artifact=SimpleNamespace(resolve=self._resolve))

    def _resolve(self) -> Path:
        self.fetched += 1
        if isinstance(self.body, Exception):
            raise self.body
        path = self.folder / f"got-{self.fetched}"
        path.write_bytes(self.body)
        return path


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRemote:
    fake = FakeRemote(tmp_path, BODY)
    monkeypatch.setattr(jars, "_context", lambda _: fake)
    return fake


def test_fetches_once_then_works_without_a_network(tmp_path: Path, remote: FakeRemote) -> None:
    said: list[str] = []
    first = class_path(said.append, cache=tmp_path, lock=LOCK)
    assert [path.read_bytes() for path in first] == [BODY]
    remote.body = OSError("no network")
    assert class_path(said.append, cache=tmp_path, lock=LOCK) == first
    assert remote.fetched == 1
    assert said == ["fetching Apache Kafka 9.9 (1 jars)"]


def test_a_damaged_jar_is_named_and_fetched_anew(tmp_path: Path, remote: FakeRemote) -> None:
    [path] = class_path(lambda _: None, cache=tmp_path, lock=LOCK)
    path.write_bytes(b"torn")
    said: list[str] = []
    class_path(said.append, cache=tmp_path, lock=LOCK)
    assert path.read_bytes() == BODY
    assert str(path) in said[0]
    assert "damaged" in said[0]


def test_a_jar_that_is_not_the_locked_one_is_refused_by_name(tmp_path: Path, remote: FakeRemote) -> None:
    remote.body = b"something else"
    with pytest.raises(EmbeddedError, match=r"thing-1\.0\.jar as downloaded is not the locked one"):
        class_path(lambda _: None, cache=tmp_path, lock=LOCK)
    assert not list((tmp_path / "kafka-9.9").glob("*.jar"))


def test_no_network_says_what_to_do(tmp_path: Path, remote: FakeRemote) -> None:
    remote.body = OSError("name or service\nnot known")
    with pytest.raises(EmbeddedError) as caught:
        class_path(lambda _: None, cache=tmp_path, lock=LOCK)
    assert "thing-1.0.jar: name or service not known" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_committed_lock_is_complete() -> None:
    lock = JarLock.load()
    assert lock.version.startswith("4.")
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in lock.jars)
    names = [jar.name for jar in lock.jars]
    assert len(set(names)) == len(names)
    assert {f"kafka_2.13-{lock.version}.jar", f"kafka-clients-{lock.version}.jar"} <= set(names)
    text = jars.LOCK_FILE.read_text()
    assert "://" not in text
