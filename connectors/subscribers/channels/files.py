"""Files: a batch each, complete or not there, with a manifest behind it; in a folder here or on an SFTP server."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncssh
import orjson

from connectors.subscribers.guard import ForbiddenError, Guard, UnresolvedError
from connectors.subscribers.parcel import AwayError, Parcel, Sent, UnfitError
from connectors.subscribers.past import Past
from connectors.subscribers.secrets import SecretError, Secrets
from connectors.subscribers.writers import FormatError, written
from schemas.topology.subscribers import Files, Sftp

EXTENSION: Final = {
    "csv": "csv",
    "json": "json",
    "ndjson": "ndjson",
    "parquet": "parquet",
    "nem12": "nem12.csv",
    "nem13": "nem13.csv",
    "mdus": "mdus.xml",
    "cim": "cim.xml",
}
MANIFEST: Final = ".manifest.json"


@dataclass(frozen=True, slots=True)
class Made:
    """A file as it will be: its name follows from what is in it, so that a batch sent twice is one file."""

    name: str
    data: bytes
    manifest: bytes
    left_out: str


def made(parcel: Parcel, format: str, compress: str, past: Past | None) -> Made:
    """The file of a parcel. Raises UnfitError where none of its items fits the format, AwayError where the store does not answer."""
    try:
        content = written(format, parcel, past)
    except FormatError as error:
        raise UnfitError(str(error)) from None
    data = gzip.compress(content.data, 6, mtime=0) if compress == "gzip" else content.data
    moment = datetime.fromtimestamp(parcel.at / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    name = (
        f"{parcel.subscriber}-{parcel.object}-{moment}-{parcel.partition}-{parcel.first}-{parcel.last}-{parcel.id[:8]}.{EXTENSION[format]}"
    )
    name = f"{'test-' if parcel.test else ''}{name}{'.gz' if compress == 'gzip' else ''}"
    manifest = {
        "file": name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "format": format,
        "compression": compress,
        "subscriber": parcel.subscriber,
        "object": parcel.object,
        "schema": parcel.units[0].schema,
        "delivery": parcel.id,
        "items": content.items,
        "left_out": content.left_out[:100],
        "source": {"topic": parcel.topic, "partition": parcel.partition, "first": parcel.first, "last": parcel.last},
    }
    said = f"{len(content.left_out)} items left out: {content.left_out[0]}" if content.left_out else ""
    return Made(name, data, orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n", said)


def put(folder: Path, name: str, data: bytes) -> None:
    """Writes a file that appears complete under its name, on the disk before this returns. Raises OSError."""
    part = folder / f".{name}.part"
    try:
        with part.open("wb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        part.replace(folder / name)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FileChannel:
    """Files below the outbox."""

    kind = "file"

    def __init__(self, settings: Files, outbox: Path, past: Past | None = None) -> None:
        self.settings, self._past = settings, past
        self.folder = outbox / settings.folder
        self._outbox = outbox

    def send(self, parcel: Parcel) -> Sent:
        """Writes the file, then its manifest; each appears complete under its name."""
        file = made(parcel, self.settings.format, self.settings.compress, self._past)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.folder.resolve().is_relative_to(self._outbox.resolve()):
                raise AwayError(f"{self.settings.folder} leads out of the outbox")
            put(self.folder, file.name, file.data)
            put(self.folder, file.name + MANIFEST, file.manifest)
        except OSError as error:
            raise AwayError(f"{self.settings.folder}: {error.strerror or error}") from None
        return Sent(f"{self.settings.folder}/{file.name}", len(file.data), left_out=file.left_out)

    def close(self) -> None:
        """Nothing is held."""


class SftpChannel:
    """Files on an SFTP server whose key is known beforehand."""

    kind = "sftp"

    def __init__(self, settings: Sftp, guard: Guard, secrets: Secrets, past: Past | None = None) -> None:
        self.settings, self._guard, self._secrets, self._past = settings, guard, secrets, past

    def send(self, parcel: Parcel) -> Sent:
        """Uploads the file under a passing name, renames it, then the same with its manifest."""
        file = made(parcel, self.settings.format, self.settings.compress, self._past)
        try:
            asyncio.run(asyncio.wait_for(self._upload(file), self.settings.timeout))
        except (ForbiddenError, UnresolvedError, SecretError) as error:
            raise AwayError(str(error)) from None
        except TimeoutError:
            raise AwayError("no answer in time") from None
        except (OSError, asyncssh.Error, ValueError) as error:
            raise AwayError(f"{type(error).__name__}: {error}"[:300]) from None
        return Sent(f"{self.settings.host}:{self.settings.folder}/{file.name}", len(file.data), left_out=file.left_out)

    async def _upload(self, file: Made) -> None:
        settings = self.settings
        address = self._guard.address(settings.host, settings.port, "sftp")
        login: dict[str, object] = {"client_keys": None}
        if settings.key is not None:
            login["client_keys"] = [asyncssh.import_private_key(self._secrets.get(settings.key))]
        if settings.password is not None:
            login["password"] = self._secrets.get(settings.password).decode(errors="replace")
        trusted = [asyncssh.import_public_key(settings.host_key)]
        async with (
            asyncssh.connect(
                address, settings.port, username=settings.user, known_hosts=(trusted, [], []), agent_path=None, config=None,
                connect_timeout=settings.timeout, **login,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):  # fmt: skip
            if settings.folder not in (".", "/"):
                await sftp.makedirs(settings.folder, exist_ok=True)
            for name, data in ((file.name, file.data), (file.name + MANIFEST, file.manifest)):
                part = f"{settings.folder}/.{name}.part"
                async with sftp.open(part, "wb") as target:
                    await target.write(data)
                await self._rename(sftp, part, f"{settings.folder}/{name}")

    @staticmethod
    async def _rename(sftp: asyncssh.SFTPClient, part: str, name: str) -> None:
        """Replaces what is there, by the extension for that where the server has it."""
        try:
            await sftp.posix_rename(part, name)
        except asyncssh.SFTPOpUnsupported:
            with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                await sftp.remove(name)
            await sftp.rename(part, name)

    def close(self) -> None:
        """Nothing is held: every batch connects anew."""
