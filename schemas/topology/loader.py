"""Reads topology.yaml: a small safe subset of YAML, errors with file, line and place.

Words stay words: only ``true``, ``false``, ``null`` and plain numbers are anything else, so ``no``, ``07:30`` and ``2026-01-01`` are text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

import schemas
from schemas.topology.root import Topology, findings, known_records

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_NODES: Final = 200_000
MAX_DEPTH: Final = 40


class TopologyError(ValueError):
    """What is wrong, one line each: ``topology.yaml:37: topics.vee.inbox.partitions: must be …``."""


class _Loader(yaml.SafeLoader):
    """Composes nodes only; scalars resolve as in YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 as PyYAML declares it


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]{1,18}$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}$"), list("-+0123456789"))

Path_ = tuple[str | int, ...]


class _Document:
    """The values of a YAML text and the line of each."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.lines: dict[Path_, int] = {(): 1}
        self._budget = MAX_NODES
        try:
            node = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise TopologyError(f"{name}:{line}: not YAML: {error.problem or error.context}") from None
        except (yaml.YAMLError, RecursionError) as error:
            raise TopologyError(f"{name}:1: not YAML: {str(error).splitlines()[0]}") from None
        if node is None:
            raise TopologyError(f"{name}:1: is empty")
        self.value = self._plain(node, ())

    def _fail(self, node: yaml.Node, message: str) -> TopologyError:
        return TopologyError(f"{self.name}:{node.start_mark.line + 1}: {message}")

    def _plain(self, node: yaml.Node, path: Path_) -> Any:
        self._budget -= 1
        if self._budget < 0 or len(path) > MAX_DEPTH:  # aliases count each time they are used
            raise self._fail(node, "is too large: aliases or nesting multiply without end")
        if path not in self.lines:
            self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self._plain(item, (*path, position)) for position, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode) or node.tag != "tag:yaml.org,2002:map":
            raise self._fail(node, f"{node.tag} is not supported here")
        result: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._fail(key, "a key must be a word")
            if key.value in result:
                raise self._fail(key, f"{dotted((*path, key.value))}: appears twice, first in line {self.lines[(*path, key.value)]}")
            self.lines[(*path, key.value)] = key.start_mark.line + 1
            result[key.value] = self._plain(item, (*path, key.value))
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind, text = node.tag.rpartition(":")[2], node.value
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text == "true"
        if kind in ("int", "float"):
            return int(text) if kind == "int" else float(text)
        raise self._fail(node, f"{node.tag} is not supported here")

    def place(self, loc: Path_, missing: bool = False) -> tuple[int, Path_]:
        """Line and path of a pydantic location: parts that are not in the text (names of alternatives) are left out, but the last
        one where it is what is missing."""
        path: Path_ = ()
        for part in loc:
            if (*path, part) in self.lines:
                path = (*path, part)
        return self.lines[path], (*path, loc[-1]) if missing else path


def dotted(path: Path_) -> str:
    """``("topics", "vee.inbox", "writers", 1)`` → ``topics.vee.inbox.writers[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _causes(error: ValidationError) -> list[Any]:
    """The errors without those that only follow from one further inside, as an empty list does from a refused item."""
    found: list[Any] = error.errors(include_url=False)
    inside = {tuple(e["loc"][:length]) for e in found for length in range(len(e["loc"]))}
    return [e for e in found if e["type"] != "too_short" or tuple(e["loc"]) not in inside]


def _sentence(error: Any) -> str:
    kind, message = error["type"], str(error["msg"])
    if kind == "extra_forbidden":
        return "is no known setting"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return re.sub(r"^Input should be", "must be", message)


def parse_topology(text: str, name: str = "topology.yaml") -> Topology:
    """The topology written in ``text``; ``name`` appears in errors. Raises TopologyError with a line per finding."""
    document = _Document(text, name)
    try:
        topology = Topology.model_validate(document.value)
    except ValidationError as error:
        causes = _causes(error)
        found = [(document.place(tuple(e["loc"]), e["type"] == "missing"), _sentence(e)) for e in causes]
        raise TopologyError(_report(name, found)) from None
    found = [(document.place(loc), message) for loc, message in findings(topology, known_records())]
    if found:
        raise TopologyError(_report(name, found))
    return topology.completed().read_from(text)


def _report(name: str, found: list[tuple[tuple[int, Path_], str]]) -> str:
    lines = sorted({(line, dotted(path), message) for (line, path), message in found})
    return "\n".join(f"{name}:{line}: {where + ': ' if where else ''}{message}" for line, where, message in lines)


def default_path() -> Path:
    """``./topology.yaml`` if there is one, else the one that comes with the package."""
    here = Path("topology.yaml")
    if here.is_file():
        return here
    package = Path(schemas.__file__).resolve().parent.parent
    wheel = package / "mdh" / "topology.yaml"
    return wheel if wheel.is_file() else package / "topology.yaml"


def load_topology(path: Path | None = None) -> Topology:
    """The topology of a file, by default :func:`default_path`. Raises TopologyError, also where it cannot be read."""
    path = path or default_path()
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise TopologyError(f"{path}:1: is larger than {MAX_BYTES} bytes")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise TopologyError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise TopologyError(f"{path}:{data[: error.start].count(10) + 1}: is not UTF-8") from None
    return parse_topology(text, str(path))
