"""Formats of head ends: bytes of one payload to blocks of reads.

A format is one entry of :data:`FORMATS`: how its content is recognised and who decodes it. To add one, write its module and
register it here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from connectors.head_end.formats import cim_xml, csv_files, imd_xml, json_reads, nem
from connectors.head_end.formats.assemble import Builder
from connectors.head_end.formats.containers import unpacked
from connectors.head_end.formats.model import Decoded, DecodeError, Options, Problem, Problems, Quantity
from schemas.identity import identity

_HEAD: Final = 4096
_Decoder = Callable[[bytes, Options, Problems, Builder], list[Quantity] | None]


@dataclass(frozen=True)
class Format:
    """A format: how content is recognised from its first bytes, and its decoder, which adds what it reads to a builder."""

    name: str
    about: str
    recognises: Callable[[bytes], bool]
    decode: _Decoder


FORMATS: Final = {
    f.name: f
    for f in (
        Format("json", "reads as one JSON object", lambda head: head[:1] in (b"{", b"["), json_reads.decode),
        Format("cim-xml", "MeterReadings of IEC 61968-9", cim_xml.is_cim, cim_xml.decode),
        Format("imd-xml", "Oracle initial measurement data", lambda head: head[:1] == b"<", imd_xml.decode),
        Format("nem12", "NEM12 and NEM13 of the Australian market", nem.is_nem, nem.decode),
        Format("csv", "delimited text under our headers or a mapping profile", csv_files.is_text, csv_files.decode),
    )
}
"""In the order in which content is tried: what is surest to tell first."""


def decode(data: bytes, options: Options) -> Decoded:
    """All reads of a payload. Raises DecodeError where nothing of it can be used.

    Parts that had to be left out, and files of an archive that could not be read, are in ``problems`` of the result. Block ids
    depend on the payload's id (without one, on its bytes) and their number only.
    """
    name = options.name
    if len(data) > options.limits.payload_bytes:
        raise DecodeError(name, 1, f"{len(data)} bytes; {options.limits.payload_bytes} are allowed")
    if options.format and options.format not in FORMATS and options.format not in options.profiles:
        known = ", ".join([*FORMATS, *options.profiles])
        raise DecodeError(name, 1, f"format {options.format!r} is none of {known}")
    if not options.payload:
        options = replace(options, payload=identity(data))
    decoded = Decoded("", [], [])
    failed: DecodeError | None = None
    for label, content in unpacked(data, name, options.limits):
        try:
            if isinstance(content, DecodeError):
                raise content
            part = _decode_file(content, replace(options, name=label), len(decoded.blocks))
        except DecodeError as error:
            failed = failed or error
            decoded.problems.append(Problem(error.file, error.line, None, error.reason))
            continue
        decoded.format = decoded.format or part.format
        decoded.blocks += part.blocks
        decoded.problems += part.problems
        decoded.notes += part.notes
        decoded.quantities += part.quantities
    if not decoded.format:
        raise failed or DecodeError(name, 1, "the archive holds no file")
    return decoded


def detect(data: bytes) -> str | None:
    """The name of the format that recognises unpacked content; None if there is no content."""
    head = data[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if not head:
        return None
    return next((f.name for f in FORMATS.values() if f.recognises(head)), None)


def warm() -> None:
    """Compiles what decoding needs (or loads it compiled), so that the first payload of a process does not wait for it."""
    zone = Options(zone="Europe/Berlin")
    decode(b"device,channel,unit,seconds,start,value,condition\nM,c,kWh,900,2024-10-27T02:00:00,1,actual\n", zone)
    decode(b"200,M,E1,1,E1,N1,S,kWh,1440,\n300,20240101,1,V\n400,1,1,A\n900\n", Options())


def _decode_file(data: bytes, options: Options, first: int) -> Decoded:
    if not data.strip():
        raise DecodeError(options.name, 1, "the file is empty")
    name = options.format if options.format in FORMATS else "csv" if options.format else detect(data)
    if name is None:
        raise DecodeError(options.name, 1, "the content is of no known format")
    problems = Problems(options.name)
    builder = Builder(options, name, problems)
    stated = FORMATS[name].decode(data.removeprefix(b"\xef\xbb\xbf"), options, problems, builder)
    return Decoded(name, builder.blocks(first), problems.all(), problems.notes, stated or [])


__all__ = ["FORMATS", "DecodeError", "Decoded", "Format", "Options", "Problem", "Quantity", "decode", "detect", "warm"]
