"""What a schema may become, and that every version stays."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import compatibility
from schemas.compatibility import check, fingerprint, freeze, obstacles


def record(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


OLD = record(
    field("id", "string"),
    field("n", "int"),
    field("kind", {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}),
    field("tags", {"type": "array", "items": "string"}),
    field("more", {"type": "map", "values": "long"}),
    field("maybe", ["null", "string"]),
    field("raw", {"type": "fixed", "name": "Four", "size": 4}),
    field("amount", {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 6}),
    field("inner", record(field("x", "float"), name="Inner")),
)


def changed(name: str, kind: Any) -> dict[str, Any]:
    return record(*(field(name, kind) if f["name"] == name else f for f in OLD["fields"]))


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        record(*OLD["fields"], field("added", "string", default="")),
        record(*OLD["fields"][1:]),
        record(*reversed(OLD["fields"])),
        record(*({**f, "doc": "words"} for f in OLD["fields"]), doc="words"),
        changed("n", "long"),
        changed("n", "double"),
        changed("n", ["null", "long"]),
        changed("kind", {"type": "enum", "name": "Kind", "symbols": ["B", "A", "C"]}),
        changed("kind", {"type": "enum", "name": "Kind", "symbols": ["A"], "default": "A"}),
        changed("more", {"type": "map", "values": "double"}),
        changed("maybe", ["string", "null", "int"]),
        changed("inner", record(field("x", "double"), field("y", "int", default=0), name="Inner")),
        record(field("ident", "string", aliases=["id"]), *OLD["fields"][1:]),
    ],
)
def test_readable_changes(new: dict[str, Any]) -> None:
    assert obstacles(new, OLD) == []


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (record(*OLD["fields"], field("added", "string")), "added: is new and has no default"),
        (record(field("ident", "string"), *OLD["fields"][1:]), "ident: is new"),
        (changed("n", "string"), "n: was int, is string"),
        (changed("inner", record(field("x", "int"), name="Inner")), "inner.x: was float, is int"),
        (changed("inner", record(field("x", "float"), field("y", "int"), name="Inner")), "inner.y: is new"),
        (changed("inner", record(field("x", "float"), name="Outer")), "inner: was named Inner, is Outer"),
        (changed("kind", {"type": "enum", "name": "Kind", "symbols": ["A"]}), "kind: lost B"),
        (changed("tags", {"type": "array", "items": "int"}), "tags[]: was string, is int"),
        (changed("more", {"type": "map", "values": "int"}), "more{}: was long, is int"),
        (changed("maybe", "string"), "maybe: was null, is string"),
        (changed("maybe", ["null", "int"]), "maybe: string is in no branch"),
        (changed("raw", {"type": "fixed", "name": "Four", "size": 5}), "raw: had 4 bytes, has 5"),
        (changed("amount", {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 3}), "amount: meaning changed"),
        (changed("amount", "bytes"), "amount: meaning changed from decimal to plain"),
    ],
)
def test_unreadable_changes_are_named(new: dict[str, Any], why: str) -> None:
    found = obstacles(new, OLD)
    assert len(found) == 1
    assert found[0].startswith(why)


def test_a_schema_that_holds_itself_is_compared_once() -> None:
    tree = record(field("left", ["null", "R"]), field("right", ["null", "R"]), field("n", "int"))
    wider = record(field("left", ["null", "R"]), field("right", ["null", "R"]), field("n", "long"))
    assert obstacles(wider, tree) == []
    assert obstacles(tree, wider) == ["n: was long, is int"]


simple = st.sampled_from(["int", "long", "float", "double", "string", "bytes", "boolean", "null"])
kinds = st.one_of(
    simple,
    st.lists(simple, min_size=1, max_size=3, unique=True),
    simple.map(lambda k: {"type": "array", "items": k}),
    st.integers(1, 3).map(lambda n: {"type": "fixed", "name": "F", "size": n}),
    st.lists(st.sampled_from("ABC"), min_size=1, max_size=3, unique=True).map(lambda s: {"type": "enum", "name": "E", "symbols": s}),
)
SAMPLES = {
    "int": 5, "long": 2**40, "float": 0.5, "double": 0.1, "string": "text", "bytes": b"\1", "boolean": True, "null": None,
}  # fmt: skip


def sample(kind: Any) -> list[Any]:
    """Values that exercise every branch and symbol of a type."""
    if isinstance(kind, list):
        return [value for branch in kind for value in sample(branch)]
    if isinstance(kind, dict):
        if kind["type"] == "array":
            return [[value] for value in sample(kind["items"])]
        return [b"x" * kind["size"]] if kind["type"] == "fixed" else list(kind["symbols"])
    return [SAMPLES[kind]]


@settings(max_examples=300, deadline=None)
@given(kinds, kinds)
def test_what_is_called_readable_is_read_by_fastavro(old: Any, new: Any) -> None:
    writer, reader = record(field("f", old)), record(field("f", new))
    if obstacles(reader, writer):
        return
    for value in sample(old):
        body = io.BytesIO()
        fastavro.schemaless_writer(body, fastavro.parse_schema(writer), {"f": value})
        body.seek(0)
        fastavro.schemaless_reader(body, fastavro.parse_schema(writer), fastavro.parse_schema(reader))


# --- versions on disk ---------------------------------------------------------------------------------------------------------


def test_the_committed_schemas_are_in_order() -> None:
    assert check() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the committed schemas to spoil."""
    for name in ("ids.json", "fingerprints.json"):
        shutil.copy(compatibility.FOLDER / name, tmp_path)
    shutil.copytree(compatibility.FOLDER / "avro", tmp_path / "avro")
    (tmp_path / "avro" / "old").mkdir(exist_ok=True)
    return tmp_path


def edit(path: Path, change: Any) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def second_version(folder: Path, change: Any) -> None:
    shutil.copy(folder / "avro" / "Tick.avsc", folder / "avro" / "old" / "Tick.v1.avsc")
    edit(folder / "avro" / "Tick.avsc", change)
    edit(folder / "ids.json", lambda ids: ids.update({"900": "Tick.v2"}))


def test_a_change_without_a_new_version_is_found(folder: Path) -> None:
    edit(folder / "avro" / "Tick.avsc", lambda s: s["fields"].append(field("more", "int", default=0)))
    (found,) = check(folder)
    assert found.startswith("avro/Tick.avsc: changed, but is still version 1. Put the committed text into avro/old/Tick.v1.avsc")


def test_words_may_change_without_a_new_version(folder: Path) -> None:
    edit(folder / "avro" / "Tick.avsc", lambda s: s.update(doc="Other words."))
    assert check(folder) == []


def test_a_readable_second_version_is_in_order_once_frozen(folder: Path) -> None:
    second_version(folder, lambda s: s["fields"].append(field("more", "int", default=0)))
    assert check(folder) == ["Tick.v2: has no fingerprint; when it is final run: mdh schemas freeze"]
    assert freeze(folder) == ["Tick.v2"]
    assert check(folder) == []


def test_every_older_version_must_be_readable(folder: Path) -> None:
    second_version(folder, lambda s: s["fields"].append(field("more", "int")))
    freeze(folder)
    assert check(folder) == ["Tick: cannot read version 1: more: is new and has no default, so older records cannot be read"]


def test_an_older_version_is_never_changed(folder: Path) -> None:
    second_version(folder, lambda s: None)
    freeze(folder)
    edit(folder / "avro" / "old" / "Tick.v1.avsc", lambda s: s["fields"].pop())
    assert check(folder)[0] == "avro/old/Tick.v1.avsc: old versions are never changed"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda ids: ids.pop("4"), "avro/Tick.avsc: has no id"),
        (lambda ids: ids.update({"900": "Nothing.v1"}), "ids.json: there is no avro/Nothing.avsc"),
        (lambda ids: ids.update({"900": "Tick.v1"}), "ids.json: Tick.v1 has two ids"),
        (lambda ids: ids.update({"900": "Tick.v2"}), "avro/old/Tick.v1.avsc: is missing"),
        (lambda ids: ids.update({"900": "Tick.v3"}), "ids.json: Tick has versions [1, 3]"),
        (lambda ids: ids.update({"900": "Tick"}), "ids.json: 900: 'Tick' is not"),
        (lambda ids: ids.update({"0": "Tick.v2"}), "ids.json: 0: 'Tick.v2' is not a positive id"),
    ],
)
def test_ids_and_files_must_fit(folder: Path, change: Any, why: str) -> None:
    edit(folder / "ids.json", change)
    assert any(line.startswith(why) for line in check(folder))
    with pytest.raises(ValueError, match=r"\w"):
        freeze(folder)


def test_a_stray_old_version_is_found(folder: Path) -> None:
    (folder / "avro" / "old" / "Gone.v1.avsc").write_text("{}")
    assert check(folder) == ["avro/old/Gone.v1.avsc: is no older version in ids.json"]


def test_fingerprints_ignore_words_only() -> None:
    assert fingerprint(record(field("a", "int", doc="x"))) == fingerprint(record(field("a", "int")))
    assert fingerprint(record(field("a", "int"))) != fingerprint(record(field("a", "long")))
    assert fingerprint(record(field("a", "int", default=1))) != fingerprint(record(field("a", "int")))
