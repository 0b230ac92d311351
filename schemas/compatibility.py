"""Whether a schema can read what older versions of it wrote (Avro's resolution rules), and whether every version is kept.

BACKWARD_TRANSITIVE: the current schema of each record type must read records of *all* its committed versions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Schema = Any  # a schema as parsed JSON: a name, a list (union) or an object

_PROMOTIONS: Final = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
_PRIMITIVES: Final = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
_NAMED: Final = {"record", "enum", "fixed"}
_VERSION = re.compile(r"(?P<name>[A-Z][A-Za-z0-9]*)\.v(?P<number>[1-9][0-9]*)")
FOLDER: Final = Path(__file__).parent


class _Names:
    """Named types of one schema, so that later references find them."""

    def __init__(self, schema: Schema) -> None:
        self.types: dict[str, Schema] = {}
        self._collect(schema)

    def _collect(self, schema: Schema) -> None:
        if isinstance(schema, list):
            for branch in schema:
                self._collect(branch)
        elif isinstance(schema, dict):
            kind = schema["type"]
            if kind in _NAMED:
                self.types[short_name(schema)] = schema
                for field in schema.get("fields", []):
                    self._collect(field["type"])
            elif kind == "array":
                self._collect(schema["items"])
            elif kind == "map":
                self._collect(schema["values"])
            elif not isinstance(kind, str):
                self._collect(kind)

    def resolve(self, schema: Schema) -> Schema:
        """The schema behind a reference or a wrapped type."""
        if isinstance(schema, str):
            return schema if schema in _PRIMITIVES else self.types[schema.rpartition(".")[2]]
        if isinstance(schema, dict) and schema["type"] not in _NAMED | {"array", "map"} | _PRIMITIVES:
            return self.resolve(schema["type"])
        return schema


def short_name(schema: Mapping[str, Any]) -> str:
    """The name of a named type without its namespace."""
    return str(schema["name"]).rpartition(".")[2]


def obstacles(reader: Schema, writer: Schema) -> list[str]:
    """Why ``reader`` cannot read all that ``writer`` wrote, each with the place; empty: it can."""
    return list(_Comparison(_Names(reader), _Names(writer)).compare(reader, writer, ""))


def _kind(schema: Schema) -> str:
    return schema if isinstance(schema, str) else "union" if isinstance(schema, list) else str(schema["type"])


class _Comparison:
    def __init__(self, readers: _Names, writers: _Names) -> None:
        self.readers, self.writers = readers, writers
        self._open: set[tuple[str, str]] = set()  # named types under comparison: recursion ends there

    def compare(self, reader: Schema, writer: Schema, place: str) -> Iterator[str]:
        reader, writer = self.readers.resolve(reader), self.writers.resolve(writer)
        read, wrote = _kind(reader), _kind(writer)
        where = place or "the record"
        if wrote == "union":
            for branch in writer:
                yield from self.compare(reader, branch, place)
        elif read == "union":
            if all(list(self.compare(branch, writer, place)) for branch in reader):
                yield f"{where}: {wrote} is in no branch of the union any more"
        elif read != wrote:
            if read not in _PROMOTIONS.get(wrote, ()):
                yield f"{where}: was {wrote}, is {read}"
        elif read in _NAMED:
            yield from self._named(reader, writer, place)
        elif read == "array":
            yield from self.compare(reader["items"], writer["items"], f"{place}[]")
        elif read == "map":
            yield from self.compare(reader["values"], writer["values"], f"{place}{{}}")
        elif isinstance(reader, dict) or isinstance(writer, dict):
            yield from self._logical(reader, writer, where)

    @staticmethod
    def _logical(reader: Schema, writer: Schema, where: str) -> Iterator[str]:
        """The bytes stay readable, but would mean something else."""
        meaning = ("logicalType", "scale")
        was, now = ([s.get(m) for m in meaning] if isinstance(s, dict) else [None, None] for s in (writer, reader))
        if was != now:
            yield f"{where}: meaning changed from {was[0] or 'plain'} to {now[0] or 'plain'} (or its scale)"

    def _named(self, reader: Schema, writer: Schema, place: str) -> Iterator[str]:
        pair = (short_name(reader), short_name(writer))
        where = place or pair[0]
        if pair[0] != pair[1] and pair[1] not in {a.rpartition(".")[2] for a in reader.get("aliases", [])}:
            yield f"{where}: was named {pair[1]}, is {pair[0]} without an alias"
        elif reader["type"] == "fixed":
            if reader["size"] != writer["size"]:
                yield f"{where}: had {writer['size']} bytes, has {reader['size']}"
        elif reader["type"] == "enum":
            lost = [s for s in writer["symbols"] if s not in reader["symbols"]]
            if lost and "default" not in reader:
                yield f"{where}: lost {', '.join(lost)} and has no default symbol"
        elif pair not in self._open:
            self._open.add(pair)
            yield from self._fields(reader, writer, place)
            self._open.discard(pair)

    def _fields(self, reader: Schema, writer: Schema, place: str) -> Iterator[str]:
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            name = f"{place}.{field['name']}" if place else field["name"]
            known = next((written[n] for n in (field["name"], *field.get("aliases", [])) if n in written), None)
            if known is not None:
                yield from self.compare(field["type"], known["type"], name)
            elif "default" not in field:
                yield f"{name}: is new and has no default, so older records cannot be read"


@dataclass(frozen=True, slots=True)
class Versions:
    """The committed versions of one record type by number; the highest is the current one."""

    name: str
    schemas: Mapping[int, Schema]

    @property
    def current(self) -> int:
        """The number of the current version."""
        return max(self.schemas)


def fingerprint(schema: Schema) -> str:
    """A hash over everything in a schema but its documentation."""
    return hashlib.blake2b(json.dumps(_undocumented(schema), sort_keys=True).encode(), digest_size=8).hexdigest()


def _undocumented(schema: Schema) -> Schema:
    if isinstance(schema, list):
        return [_undocumented(item) for item in schema]
    if isinstance(schema, dict):
        return {key: _undocumented(value) for key, value in schema.items() if key != "doc"}
    return schema


def check(folder: Path = FOLDER) -> list[str]:
    """Everything wrong with the committed schemas of a folder (``avro/``, ``avro/old/``, ``ids.json``, ``fingerprints.json``)."""
    found, versions = read(folder)
    if found:
        return found
    prints: dict[str, str] = json.loads((folder / "fingerprints.json").read_text())
    for kind in versions:
        current = kind.schemas[kind.current]
        for number, schema in sorted(kind.schemas.items()):
            label = f"{kind.name}.v{number}"
            known, actual = prints.get(label), fingerprint(schema)
            if known is None:
                found.append(f"{label}: has no fingerprint; when it is final run: mdh schemas freeze")
            elif known != actual and number == kind.current:
                found.append(
                    f"avro/{kind.name}.avsc: changed, but is still version {number}. Put the committed text into "
                    f"avro/old/{label}.avsc, give {kind.name}.v{number + 1} the next free id in ids.json, then run: mdh schemas freeze"
                )
            elif known != actual:
                found.append(f"avro/old/{label}.avsc: old versions are never changed")
            if number != kind.current:
                found += [f"{kind.name}: cannot read version {number}: {why}" for why in obstacles(current, schema)]
    found += [f"fingerprints.json: {label} is nowhere else" for label in sorted(set(prints) - _labels(versions))]
    return found


def _labels(versions: list[Versions]) -> set[str]:
    return {f"{kind.name}.v{number}" for kind in versions for number in kind.schemas}


def read(folder: Path = FOLDER) -> tuple[list[str], list[Versions]]:
    """What does not fit together among files and ids, and all versions of all record types."""
    found: list[str] = []
    ids: dict[str, str] = json.loads((folder / "ids.json").read_text())
    numbered: dict[str, dict[int, str]] = {}
    for number, label in ids.items():
        match = _VERSION.fullmatch(label)
        if not match or not number.isdigit() or not 0 < int(number) < 2**31:
            found.append(f"ids.json: {number}: {label!r} is not a positive id with <Name>.v<number>")
        elif int(match["number"]) in numbered.setdefault(match["name"], {}):
            found.append(f"ids.json: {label} has two ids")
        else:
            numbered[match["name"]][int(match["number"])] = number
    names = {path.stem for path in (folder / "avro").glob("*.avsc")}
    old = {path.stem for path in (folder / "avro" / "old").glob("*.avsc")}
    found += [f"avro/{name}.avsc: has no id; add {name}.v1 to ids.json" for name in sorted(names - set(numbered))]
    found += [f"ids.json: there is no avro/{name}.avsc" for name in sorted(set(numbered) - names)]
    versions = []
    for name in sorted(names & set(numbered)):
        numbers = sorted(numbered[name])
        ids_in_order = [int(numbered[name][n]) for n in numbers]
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"ids.json: {name} has versions {numbers}; they must count from 1 without holes")
        if ids_in_order != sorted(ids_in_order):
            found.append(f"ids.json: a later version of {name} has a lower id than an earlier one")
        missing = [f"{name}.v{n}" for n in numbers[:-1] if f"{name}.v{n}" not in old]
        found += [f"avro/old/{label}.avsc: is missing; records of that version could not be read" for label in missing]
        if not missing:
            paths = {n: folder / "avro" / "old" / f"{name}.v{n}.avsc" for n in numbers[:-1]}
            paths[numbers[-1]] = folder / "avro" / f"{name}.avsc"
            versions.append(Versions(name, {n: json.loads(path.read_text()) for n, path in paths.items()}))
    kept = {f"{name}.v{n}" for name, numbers_ in numbered.items() for n in sorted(numbers_)[:-1]}
    found += [f"avro/old/{label}.avsc: is no older version in ids.json" for label in sorted(old - kept)]
    found += [f"avro/{v.name}.avsc: is named {s['name']}" for v in versions for s in v.schemas.values() if s["name"] != v.name]
    return found, versions


def freeze(folder: Path = FOLDER, again: frozenset[str] = frozenset()) -> list[str]:
    """Writes the fingerprints of versions that have none; returns their labels. ``again`` names record types to overwrite, which
    is right only as long as nothing was ever written with that version. Raises ValueError where files and ids do not fit."""
    found, versions = read(folder)
    if found:
        raise ValueError("; ".join(found))
    path = folder / "fingerprints.json"
    prints: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    fresh = []
    for kind in versions:
        for number, schema in sorted(kind.schemas.items()):
            label = f"{kind.name}.v{number}"
            if label not in prints or (kind.name in again and prints[label] != fingerprint(schema)):
                prints[label] = fingerprint(schema)
                fresh.append(label)
    path.write_text(json.dumps(dict(sorted(prints.items())), indent=2) + "\n")
    return fresh
