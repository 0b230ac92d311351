"""All objects and who names whom, kept as compact entries of a state; changes can be taken back until they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from schemas.master import named
from streams.master.timeline import EVER, FOREVER, Span, outward
from streams.runtime.state import State

PREFIX: Final = "o/"
Body = dict[str, Any]
Key = tuple[str, str]  # kind, id


@dataclass(frozen=True, slots=True)
class Thing:
    """An object: its version and what holds of it when. No spans: it was taken away, or never was."""

    version: int = 0
    spans: list[Span[Body]] = field(default_factory=list)

    @property
    def exists(self) -> bool:
        """Whether anything holds of it at any time."""
        return bool(self.spans)


NOTHING: Final = Thing()


def entry_of(key: Key) -> str:
    """The state entry of an object."""
    return f"{PREFIX}{key[0]}/{key[1]}"


class Registry:
    """Objects by kind and id. The index of who names whom is derived, and made when first needed."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._users: dict[str, list[str]] | None = None
        self._journal: list[tuple[Key, bytes | None]] = []

    def get(self, key: Key) -> Thing:
        """An object, ``NOTHING`` for an unknown one."""
        data = self.state.entries.get(entry_of(key))
        return NOTHING if data is None else _parsed(data)

    def has(self, key: Key) -> bool:
        """Whether there is such an object."""
        return self.get(key).exists

    def set(self, key: Key, thing: Thing) -> None:
        """Puts an object in the place of what it was; :meth:`take_back` can undo it until :meth:`keep`."""
        self._journal.append((key, self.state.entries.get(entry_of(key))))
        self._store(key, _packed(thing))

    def keep(self) -> None:
        """What was set since the last call stays."""
        self._journal.clear()

    def take_back(self) -> None:
        """Undoes what was set since the last :meth:`keep`."""
        for key, data in reversed(self._journal):
            self._store(key, data)
        self._journal.clear()

    def users(self, key: Key, kind: str) -> list[str]:
        """Ids of the objects of a kind that name this one at any time, sorted."""
        prefix = f"{kind}/"
        return sorted(one[len(prefix) :] for one in self._index().get(f"{key[0]}/{key[1]}", ()) if one.startswith(prefix))

    def all_users(self, key: Key) -> list[str]:
        """All objects that name this one, as ``kind/id``, sorted."""
        return sorted(self._index().get(f"{key[0]}/{key[1]}", ()))

    def __iter__(self) -> Iterator[Key]:
        size = len(PREFIX)
        for entry in self.state.entries:
            if entry.startswith(PREFIX):
                kind, _, id = entry[size:].partition("/")
                yield kind, id

    def _store(self, key: Key, data: bytes | None) -> None:
        users, entry = self._index(), entry_of(key)
        own = entry[len(PREFIX) :]
        before, after = _names(key[0], self.state.entries.get(entry)), _names(key[0], data)
        for name in before - after:
            users[name].remove(own)
            if not users[name]:
                del users[name]
        for name in after - before:
            users.setdefault(name, []).append(own)
        self.state.put(entry, data)

    def _index(self) -> dict[str, list[str]]:
        if self._users is None:
            self._users = {}
            size = len(PREFIX)
            for entry, data in self.state.entries.items():
                if entry.startswith(PREFIX):
                    own = entry[size:]
                    for name in _names(own.partition("/")[0], data):
                        self._users.setdefault(name, []).append(own)
        return self._users


def _names(kind: str, data: bytes | None) -> set[str]:
    if data is None:
        return set()
    return {f"{target}/{id}" for _, _, body in _parsed(data).spans for target, id in named(kind, body)}


def _parsed(data: bytes) -> Thing:
    version, spans = orjson.loads(data)
    return Thing(version, [(EVER if a is None else a, FOREVER if b is None else b, body) for a, b, body in spans])


def _packed(thing: Thing) -> bytes:
    return orjson.dumps([thing.version, [[outward(a), outward(b), body] for a, b, body in thing.spans]], option=orjson.OPT_SORT_KEYS)
