"""What every format takes and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from schemas.block import ReadBlock
from schemas.topology.ingest import Limits
from schemas.topology.profiles import Profile

BLOCK_READS: Final = 50_000  # reads of one block at most
MAX_PROBLEMS: Final = 500  # named one by one per file; the rest is counted
MAX_LINE: Final = 1024 * 1024
MAX_COLUMNS: Final = 5_000
MAX_NAME: Final = 200  # characters of a device or channel
_NO_PROFILES: Final[Mapping[str, Profile]] = MappingProxyType({})


class DecodeError(ValueError):
    """A whole payload is refused. ``str()`` is ``file:line: reason``."""

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file or 'payload'}:{line}: {reason}")
        self.file, self.line, self.reason = file, line, reason


@dataclass(frozen=True)
class Options:
    """What is known about a payload besides its bytes.

    ``name`` is its file name, for messages only. ``format`` is one of :data:`FORMATS` or the name of a mapping profile; without it
    the content decides. ``zone`` is the IANA zone of times that carry no offset; it wins over a profile's.
    """

    name: str = ""
    format: str | None = None
    zone: str | None = None
    source: str = ""
    payload: str = ""
    received_at: int = 0
    profiles: Mapping[str, Profile] = field(default_factory=lambda: _NO_PROFILES)
    limits: Limits = field(default_factory=Limits)


@dataclass
class Problem:
    """What is said of one part of a file: why it was refused, or by which rule it was kept."""

    file: str
    line: int
    column: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.file or 'payload'}:{self.line}: {self.what}" + (f" (column {self.column})" if self.column else "")


@dataclass(frozen=True)
class Quantity:
    """A consumption the source states between two register readings (NEM13), for display; the readings themselves are in the blocks.

    ``start`` and ``end`` are UTC seconds, ``micros`` millionths of ``unit``.
    """

    device: str
    channel: str
    unit: str
    start: int
    end: int
    micros: int
    condition: int


@dataclass
class Decoded:
    """The reads of one payload; ``problems`` tell what was left out, ``notes`` what was kept by a rule worth telling."""

    format: str
    blocks: list[ReadBlock]
    problems: list[Problem]
    notes: list[Problem] = field(default_factory=list)
    quantities: list[Quantity] = field(default_factory=list)


class Problems:
    """Collects the problems of one file, in bounded memory."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Problem] = []
        self.notes: list[Problem] = []
        self.more = 0

    def add(self, line: int, what: str, column: str | None = None) -> None:
        """Notes one problem; beyond :data:`MAX_PROBLEMS` they are only counted."""
        if len(self.found) < MAX_PROBLEMS:
            self.found.append(Problem(self.file, int(line), column, what))
        else:
            self.more += 1

    def note(self, line: int, what: str) -> None:
        """Notes something that was kept; nothing beyond :data:`MAX_PROBLEMS`."""
        if len(self.notes) < MAX_PROBLEMS:
            self.notes.append(Problem(self.file, int(line), None, what))

    def count(self, number: int) -> None:
        """Adds problems of the kind last noted that are not spelled out."""
        self.more += number

    def all(self) -> list[Problem]:
        """The problems, the last one telling how many more there were."""
        rest = [Problem(self.file, self.found[-1].line, None, f"… and {self.more} more")] if self.more else []
        return self.found + rest

    def __len__(self) -> int:
        return len(self.found) + self.more


def shown(text: str | bytes, longest: int = 40) -> str:
    """Text from a file as it may stand in a message: short, quoted, without control characters."""
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return repr(plain if len(plain) <= longest else plain[: longest - 1] + "…")
