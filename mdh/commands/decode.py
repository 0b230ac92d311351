"""``mdh decode``: what is in meter files, as NDJSON, without a hub."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from connectors.head_end.formats import FORMATS, Decoded, DecodeError, Options, decode
from mdh.errors import UsageError
from schemas.block import DIRECTIONS, ReadBlock, starts_of
from schemas.conditions import MISSING, OUTAGE, name_of
from schemas.quantity import text_of
from schemas.topology import TopologyError, load_topology
from schemas.units import resolve

Key = tuple[str, str, str, int]
MAX_FILE = 256 * 1024 * 1024


def main(
    files: Annotated[list[str], typer.Argument(help="Meter files: CSV, JSON, Oracle IMD XML, NEM12/NEM13, also in zip or gzip")],
    format_: Annotated[str | None, typer.Option("--format", help=f"{', '.join(FORMATS)} or a mapping profile; else by content")] = None,
    zone: Annotated[str | None, typer.Option(help="IANA zone of times without offset, such as Europe/Berlin")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Without the values")] = False,
    topology: Annotated[Path | None, typer.Option(envvar="MDH_TOPOLOGY", help="topology.yaml with mapping profiles")] = None,
) -> None:
    """Show what is in meter files, without a hub.

    Prints one JSON object per channel and file. What is refused goes to stderr as file:line: reason; a file that is refused whole makes
    the exit status 2, the others are decoded all the same.
    """
    try:
        known = load_topology(topology)
    except TopologyError as error:
        raise UsageError(str(error)) from error
    limits = known.ingest.limits.model_copy(update={"payload_bytes": MAX_FILE})
    failed = False
    for file in files:
        try:
            decoded = decode(content_of(file), Options(name=file, format=format_, zone=zone, profiles=known.profiles, limits=limits))
        except (DecodeError, OSError) as error:
            reason = f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)
            print(reason, file=sys.stderr)
            failed = True
            continue
        for problem in sorted([*decoded.problems, *decoded.notes], key=lambda p: (p.file, p.line)):
            print(problem, file=sys.stderr)
        for item in objects(decoded, file, summary=summary):
            sys.stdout.buffer.write(orjson.dumps(item) + b"\n")
    sys.stdout.flush()
    if failed:
        raise typer.Exit(2)


def content_of(file: str) -> bytes:
    """A file's bytes. Raises DecodeError where there are too many, OSError where it cannot be read."""
    path = Path(file)
    if path.is_file() and path.stat().st_size > MAX_FILE:
        raise DecodeError(file, 1, f"{path.stat().st_size} bytes; {MAX_FILE} are allowed")
    return path.read_bytes()


def objects(decoded: Decoded, file: str, *, summary: bool) -> Iterator[dict[str, Any]]:
    """The objects of one file: one per channel, unit and interval length, in the order the channels first appear."""
    rows: dict[Key, list[tuple[ReadBlock, int]]] = {}
    for block in decoded.blocks:
        names = zip(block.device.to_pylist(), block.channel.to_pylist(), block.unit.to_pylist(), block.seconds.tolist(), strict=True)
        for row, key in enumerate(names):
            rows.setdefault(key, []).append((block, row))
    begins = {id(block): starts_of(block.count) for block in decoded.blocks}
    times = {id(block): starts_of(block.reads) for block in decoded.blocks}
    for key, parts in rows.items():
        parts.sort(key=lambda part: int(part[0].start[part[1]]))
        first, row = parts[0]
        values = np.concatenate([_slice(b.values, begins[id(b)][r], b.count[r]) for b, r in parts])
        quality = np.concatenate([_slice(b.conditions, begins[id(b)][r], b.count[r]) for b, r in parts])
        head = {
            "file": file,
            "format": decoded.format,
            "device": key[0],
            "channel": key[1],
            "direction": DIRECTIONS[int(first.direction[row])],
            "quantity": resolve(key[2]).quantity,
            "unit": key[2],
            "interval_seconds": key[3],
        }
        if key[3]:
            yield head | _intervals(parts, key[3], values, quality, summary)
        else:
            at = np.concatenate([_slice(b.times, times[id(b)][r], b.reads[r]) for b, r in parts])
            yield head | _registers(at, values, quality, summary) | _stated(decoded, key, summary)


def _intervals(parts: list[tuple[ReadBlock, int]], seconds: int, values: np.ndarray, quality: np.ndarray, summary: bool) -> dict[str, Any]:
    starts = np.array([int(b.start[r]) for b, r in parts])
    ends = starts + np.array([int(b.count[r]) for b, r in parts]) * seconds
    gaps = [{"start": iso(int(a)), "end": iso(int(b))} for a, b in zip(ends[:-1], starts[1:], strict=True) if b > a]
    found = {
        "start": iso(int(starts[0])),
        "end": iso(int(ends.max())),
        "intervals": len(values),
        "total": text_of(total(values)),
        "by_condition": by_condition(quality),
        "registers": 0,
    }
    return found if summary else found | {"gaps": gaps, "values": texts(values, quality), "conditions": quality.tolist()}


def _registers(at: np.ndarray, values: np.ndarray, quality: np.ndarray, summary: bool) -> dict[str, Any]:
    known = values[(quality < MISSING) | (quality >= OUTAGE)]
    found: dict[str, Any] = {
        "start": iso(int(at[0])),
        "end": iso(int(at[-1])),
        "intervals": 0,
        "total": text_of(int(known[-1]) - int(known[0])) if len(known) else None,
        "by_condition": by_condition(quality),
        "registers": len(values),
    }
    if summary:
        return found
    reads = zip(at.tolist(), texts(values, quality), quality.tolist(), strict=True)
    return found | {"reads": [{"at": iso(when), "value": value, "condition": code} for when, value, code in reads]}


def _stated(decoded: Decoded, key: Key, summary: bool) -> dict[str, Any]:
    """What the file itself says was consumed between the reads (NEM13)."""
    stated = [q for q in decoded.quantities if (q.device, q.channel, q.unit) == key[:3]]
    if not stated:
        return {}
    found: dict[str, Any] = {"total": text_of(sum(q.micros for q in stated))}
    if not summary:
        found["quantities"] = [
            {"start": iso(q.start), "end": iso(q.end), "value": text_of(q.micros), "condition": q.condition} for q in stated
        ]
    return found


def _slice(column: np.ndarray, begin: int, size: int) -> np.ndarray:
    return column[begin : begin + size]


def iso(second: int) -> str:
    """A UTC second as ``2026-03-29T00:15:00Z``."""
    return f"{np.datetime64(second, 's')}Z"


def total(values: np.ndarray) -> int:
    """The exact sum of 64-bit integers, however large."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


def texts(values: np.ndarray, quality: np.ndarray) -> list[str | None]:
    """Values as decimal text; None where there is none."""
    absent = ((quality >= MISSING) & (quality < OUTAGE)) | (quality == 0)
    return [None if gone else text_of(micros) for micros, gone in zip(values.tolist(), absent.tolist(), strict=True)]


def by_condition(quality: np.ndarray) -> dict[str, int]:
    """How many values each condition range has, best first."""
    codes, counts = np.unique(quality, return_counts=True)
    found: dict[str, int] = {}
    for code, count in zip(codes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        found[name_of(code)] = found.get(name_of(code), 0) + count
    return found
