"""Records to bytes and back: Avro bodies in Confluent's wire format (a zero byte, four bytes of schema id, the body).

Ids come from a schema registry where one is configured, else from ``ids.json`` beside this file. Every version of a schema
that was ever written is kept: the current one as ``avro/<Name>.avsc``, older ones as ``avro/old/<Name>.v<n>.avsc``.
"""

from __future__ import annotations

import io
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import fastavro

from schemas.block import Block, DayBlock, FinalBlock, ReadBlock, RecallBlock
from schemas.flat import Encoder, NotFlatError, encoder

FOLDER: Final = Path(__file__).parent
BLOCKS: Final[dict[str, type[Block]]] = {kind.SCHEMA: kind for kind in (ReadBlock, FinalBlock, DayBlock, RecallBlock)}
_HEAD: Final = 5
MAX_BODY: Final = 256 * 1024 * 1024


def schema_text(name: str) -> dict[str, Any]:
    """The schema of a record type or of an old version of it (``Tick``, ``Tick.v1``) as plain JSON."""
    for path in (FOLDER / "avro" / f"{name}.avsc", FOLDER / "avro" / "old" / f"{name}.avsc"):
        if path.exists():
            parsed: dict[str, Any] = json.loads(path.read_text())
            return parsed
    return schema_text(name.rpartition(".v")[0])


@cache
def _parsed(name: str) -> Any:
    return fastavro.parse_schema(schema_text(name))


class Codec:
    """Encodes and decodes framed records by one table of schema ids (``{id: "Name.v1"}``)."""

    def __init__(self, ids: dict[int, str] | None = None) -> None:
        table = ids if ids is not None else {int(k): v for k, v in json.loads((FOLDER / "ids.json").read_text()).items()}
        self.ids: dict[int, str] = table
        by_version = sorted(table.items(), key=lambda item: int(item[1].rpartition(".v")[2]))
        newest = {versioned.rpartition(".v")[0]: number for number, versioned in by_version}
        self._readers: dict[str, Any] = {}
        self._heads = {name: b"\0" + number.to_bytes(4, "big") for name, number in newest.items()}
        self._encoders: dict[str, Encoder | None] = {}

    def encode(self, name: str, record: dict[str, Any]) -> bytes:
        """A record of the named type, framed. Raises ValueError where it does not fit its schema."""
        if name not in self._encoders:
            self._encoders[name] = encoder(schema_text(name), self._heads[name])
        flat = self._encoders[name]
        if flat is not None:
            with suppress(NotFlatError, KeyError, TypeError, AttributeError, IndexError):
                return flat(record)
        buffer = io.BytesIO()
        buffer.write(self._heads[name])
        fastavro.schemaless_writer(buffer, _parsed(name), record)
        return buffer.getvalue()

    def _read_as(self, writer: str, name: str) -> Any:
        """The schema to read a version as; None: it is the newest one, and nothing needs to be matched."""
        if writer not in self._readers:
            self._readers[writer] = None if _parsed(writer) == _parsed(name) else _parsed(name)
        return self._readers[writer]

    def encode_block(self, block: Block) -> bytes:
        """A block, framed."""
        return self.encode(block.SCHEMA, block.to_record())

    def name_of(self, data: bytes) -> str:
        """The record type of framed bytes. Raises ValueError if they are not framed with a known id."""
        number = int.from_bytes(data[1:_HEAD], "big")
        if len(data) < _HEAD or data[0] != 0 or number not in self.ids:
            raise ValueError("not a framed record with a known schema id")
        return self.ids[number].rpartition(".v")[0]

    def decode(self, data: bytes) -> Any:
        """The block or dict behind framed bytes. Raises ValueError on anything else, without executing what is in them."""
        name = self.name_of(data)
        if len(data) > MAX_BODY:
            raise ValueError(f"record of {len(data)} bytes")
        writer = self.ids[int.from_bytes(data[1:_HEAD], "big")]
        try:
            record: Any = fastavro.schemaless_reader(io.BytesIO(data[_HEAD:]), _parsed(writer), self._read_as(writer, name))
        except (EOFError, OverflowError, MemoryError, IndexError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"{name}: body does not follow its schema ({error})") from error
        kind = BLOCKS.get(name)
        return kind.from_record(record).check() if kind else record
