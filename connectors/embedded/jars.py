"""The jars of Apache Kafka: named and checksummed in ``kafka.lock.json``, fetched once by ``jgo``, verified at every use."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.embedded import EmbeddedError

LOCK_FILE = Path(__file__).with_name("kafka.lock.json")
ROOT_COORDINATE = "org.apache.kafka:kafka_2.13"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl"  # without it Kafka would start mute
_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar of the lock: Maven coordinate ``group:artifact:version`` and SHA-256 of its bytes."""

    coordinate: str
    sha256: str

    @property
    def name(self) -> str:
        """The file name, as Maven spells it."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


@dataclass(frozen=True, slots=True)
class JarLock:
    """All jars of one Kafka version, in class-path order."""

    version: str
    jars: tuple[Jar, ...]

    @classmethod
    def load(cls, path: Path = LOCK_FILE) -> JarLock:
        """Reads a lock file."""
        data = json.loads(path.read_text())
        return cls(data["version"], tuple(Jar(**jar) for jar in data["jars"]))

    def dump(self, path: Path = LOCK_FILE) -> None:
        """Writes a lock file."""
        jars = [{"coordinate": jar.coordinate, "sha256": jar.sha256} for jar in self.jars]
        path.write_text(json.dumps({"version": self.version, "jars": jars}, indent=1) + "\n")


def cache_dir() -> Path:
    """Where downloads are kept for all data directories: ``MDH_CACHE_DIR``, else ``mdh`` in the user's cache folder."""
    if named := os.environ.get("MDH_CACHE_DIR"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdh"


def class_path(say: Callable[[str], None], *, cache: Path | None = None, lock: JarLock | None = None) -> list[Path]:
    """Verified jars of the lock, fetched where they are not there yet.

    ``say`` is told about downloads and about a damaged jar that is fetched anew. Raises EmbeddedError naming the jar if one
    cannot be fetched or is not the one that was locked.
    """
    lock = lock or JarLock.load()
    folder = (cache or cache_dir()) / f"kafka-{lock.version}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(f"cannot make {folder}: {error.strerror}; name another place in MDH_CACHE_DIR") from error
    with _held(folder / ".lock"):
        wanted = []
        for jar in lock.jars:
            path = folder / jar.name
            if not path.exists():
                wanted.append(jar)
            elif _sha256(path) != jar.sha256:
                say(f"{path} is damaged (its checksum is not the locked one): fetching it anew")
                wanted.append(jar)
        if wanted:
            say(f"fetching Apache Kafka {lock.version} ({len(wanted)} jars)")
            _fetch(wanted, folder)
    return [folder / jar.name for jar in lock.jars]


def resolve(version: str) -> JarLock:
    """Resolves a Kafka version with its run-time dependencies anew; for whoever renews the lock."""
    with tempfile.TemporaryDirectory() as place:
        context = _context(Path(place))
        roots, others = context.resolver.resolve([context.create_dependency(f"{ROOT_COORDINATE}:{version}")])
        artifacts = [d.artifact for d in [*roots, *others] if d.scope in (None, "compile", "runtime")]
        log4j = next(a.version for a in artifacts if a.artifactId == "log4j-core")
        artifacts.append(context.create_dependency(f"{LOGGING}:{log4j}").artifact)
        with ThreadPoolExecutor(8) as pool:
            paths = list(pool.map(lambda artifact: Path(artifact.resolve()), artifacts))
        jars = [Jar(f"{a.groupId}:{a.artifactId}:{a.version}", _sha256(path)) for a, path in zip(artifacts, paths, strict=True)]
    return JarLock(version, tuple(sorted(jars, key=lambda jar: jar.coordinate)))


def _context(repository: Path) -> Any:
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository, timeout=_TIMEOUT)
    # Mirrors of the user's jgo settings come first: inside a utility's network they may be all there is
    context.remote_repos = {**GlobalSettings.load().repositories, **context.remote_repos}
    return context


def _fetch(jars: list[Jar], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as staging:
        context = _context(Path(staging))

        def fetch(jar: Jar) -> None:
            try:
                got = Path(context.create_dependency(jar.coordinate).artifact.resolve())
            except Exception as error:
                raise EmbeddedError(
                    f"cannot fetch {jar.name}: {_reason(error)}; check the network, or name a Maven mirror under "
                    "[repositories] in ~/.config/jgo.conf"
                ) from error
            digest = _sha256(got)
            if digest != jar.sha256:
                raise EmbeddedError(f"{jar.name} as downloaded is not the locked one (sha256 {digest}, locked {jar.sha256}): not used")
            shutil.move(got, folder / f".{jar.name}.part")
            (folder / f".{jar.name}.part").replace(folder / jar.name)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fetch, jars))


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    return (words if len(words) <= 160 else words[:157] + "...") or type(error).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
