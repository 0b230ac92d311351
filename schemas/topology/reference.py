"""Every setting of topology.yaml with its default and meaning, read from the models (docs/topology-reference.md)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schemas import quantity
from schemas.topology.base import FOREVER, Micros, duration_text, parse_duration
from schemas.topology.root import Topology
from schemas.topology.tou import TimeOfDay, clock


def _reader(annotation: Any) -> Any:
    """The function that reads a written value of an annotated type."""
    return next(meta.func for meta in get_args(annotation) if isinstance(meta, BeforeValidator))


def _duration(value: int) -> str:
    return "forever" if value == FOREVER else duration_text(value)


_WRITTEN = {parse_duration: _duration, _reader(Micros): quantity.text_of, _reader(TimeOfDay): clock}


def reference() -> str:
    """The page."""
    lines = [
        "# Settings of topology.yaml",
        "",
        "Made from the models in `schemas/topology` by `mdh topology show --reference`; change them there. [topology.md](topology.md)",
        "shows how they are used. `*` stands for a name you choose, `[]` for each item of a list; durations are written `90d`, `36h`,",
        "`15m`, `20s` or `forever`.",
    ]
    shown: set[type[BaseModel]] = set()
    for path, title, model in _sections(Topology, "", ""):
        if model in shown:
            continue
        shown.add(model)
        heading = f"## {f'`{path}`' if path else 'Top'}{title}"
        lines += ["", heading, "", _about(model), "", *settings_table(model)]
    return "\n".join(lines) + "\n"


def settings_table(model: type[BaseModel]) -> list[str]:
    """The settings of one model as lines of a table."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        lines.append(f"| `{field.alias or name}` | {_default(field)} | {_meaning(field)} |")
    return lines


def rule_table(model: type[BaseModel], common: type[BaseModel]) -> list[str]:
    """The settings of a rule with how they are written, those that every rule has last."""
    names = [name for name in model.model_fields if name != "id"]
    own = [name for name in names if name not in common.model_fields]
    lines = ["| setting | default | written as | meaning |", "|---|---|---|---|"]
    for name in [*own, *(name for name in names if name not in own)]:
        field = model.model_fields[name]
        lines.append(f"| `{field.alias or name}` | {_default(field)} | {_kind(name, field)} | {_meaning(field)} |")
    return lines


def _kind(name: str, field: FieldInfo) -> str:
    """How a value is written, with its unit."""
    readers = [meta.func for meta in _metadata(field) if isinstance(meta, BeforeValidator)]
    for reader, words in (
        (parse_duration, "duration"),
        (_reader(Micros), "amount in the channel's unit"),
        (_reader(TimeOfDay), "time of day"),
    ):
        if reader in readers:
            return words
    kinds = {bool: "yes or no", int: "whole number", float: "number", str: "name"}
    plain = [part for part in (field.annotation, *get_args(field.annotation)) if part in kinds]
    if field.annotation is not bool and plain and plain[0] in (int, float):
        return (
            "percent" if "percent" in name else "days" if name.endswith("days") else "condition" if "condition" in name else kinds[plain[0]]
        )
    if get_origin(field.annotation) in (tuple, list, dict):
        return "list" if get_origin(field.annotation) is not dict else "by name"
    if _words(field.annotation):
        return "word"
    return kinds[plain[0]] if plain else "date" if date in (field.annotation, *get_args(field.annotation)) else "see there"


def _about(model: type[BaseModel]) -> str:
    return " ".join(inspect.cleandoc(model.__doc__ or "").replace("``", "`").split())


def _sections(model: type[BaseModel], path: str, title: str) -> Iterator[tuple[str, str, type[BaseModel]]]:
    """A model and those inside it, depth first: where it stands in the file, which of several alternatives it is, and itself."""
    yield path, title, model
    for name, field in model.model_fields.items():
        label = field.alias or name
        for suffix, inner in _models(field.annotation):
            chosen = inner.model_fields.get("id")
            kind = f": {chosen.default}" if chosen is not None and isinstance(chosen.default, str) else ""
            yield from _sections(inner, f"{path}.{label}{suffix}" if path else f"{label}{suffix}", kind)


def _models(annotation: Any, suffix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The models in an annotation, each with how it is reached: ``.*`` by name, ``[]`` in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield suffix, annotation
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        arguments = arguments[:1]
    step = ".*" if origin is dict else "[]" if origin in (list, tuple) else ""
    for argument in arguments:
        yield from _models(argument, suffix + step)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined:
        made = field.get_default(call_default_factory=True)
        return "see there" if any(_models(field.annotation)) else f"`{_word(made)}`" if made else "none"
    if value is None or value in ((), ""):
        return "none"
    for meta in _metadata(field):
        if isinstance(meta, BeforeValidator) and meta.func in _WRITTEN:
            return f"`{_WRITTEN[meta.func](value)}`"
    return f"`{_word(value)}`"


def _word(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_word, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_word(item)}" for key, item in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metadata(field: FieldInfo) -> list[Any]:
    inner = get_args(field.annotation)[1:] if get_origin(field.annotation) is Annotated else ()
    return [*field.metadata, *inner]


def _meaning(field: FieldInfo) -> str:
    """The description, with the words that are allowed where they are few."""
    annotation = field.annotation
    words = [w for w in _words(annotation) if isinstance(w, str)]
    allowed = f"One of {', '.join(f'`{w}`' for w in words)}. " if len(words) > 1 else ""
    return (allowed + (field.description or "")).strip().replace("|", "\\|")


def _words(annotation: Any) -> tuple[Any, ...]:
    """The values of a Literal, on its own or as the items of a list."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    for argument in get_args(annotation):
        if get_origin(argument) in (Literal, tuple, list):
            return _words(argument)
    return ()
