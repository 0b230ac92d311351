"""State as arrays: tables with one row per key, written page by page to a compacted topic, and read back whole.

A table is a struct of arrays. Only pages (64 neighbouring rows) that changed are written, packed as in schemas.packing; wide columns that
have several places a row, of which one changes at a time, are written apart, place by place. Small odd things (a parked block, a
counter) are entries: a key and bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.block import pack_text, strings, unpack_text
from schemas.packing import pack, unpack, unpack_into
from streams.sorting import distinct

PAGE: Final = 64
Array = npt.NDArray[Any]


def _little(dtype: Any) -> np.dtype[Any]:
    little: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
    return little


@dataclass(frozen=True, slots=True)
class Column:
    """An integer column: its type, the shape of one row's part, the value of a new row.

    ``apart``: the first axis of the shape are places that are written one by one.
    """

    dtype: Any
    shape: tuple[int, ...] = ()
    empty: int = 0
    apart: bool = False


class Table:
    """Rows by key: ``table["value"]`` is the array of a column (row first), ``table.text["unit"]`` the list of a text column.

    Write to the arrays in place and :meth:`mark` the rows. Arrays move when the table grows: fetch them again after :meth:`add`.
    """

    def __init__(self, columns: dict[str, Column], texts: Sequence[str] = ()) -> None:
        self.columns = columns
        self.text: dict[str, list[str]] = {name: [] for name in texts}
        self.keys: list[str] = []
        self.index: dict[str, int] = {}
        self._arrays: dict[str, Array] = {name: self._blank(column, 0) for name, column in columns.items()}
        self._capacity = 0
        self._apart = {name: column for name, column in columns.items() if column.apart}
        self._near = {name: column for name, column in columns.items() if not column.apart}
        self._places = next((column.shape[0] for column in self._apart.values()), 0)
        self._dirty: set[int] = set()
        self._dirty_places: set[int] = set()  # page × places + place
        self._types = {name: _little(column.dtype) for name, column in columns.items()}
        laid = [(name, self._types[name].str, c.shape, c.empty, c.apart) for name, c in columns.items()]
        self.form = hashlib.blake2b(repr((PAGE, laid, list(texts))).encode(), digest_size=6).hexdigest()  # equal: same pages
        self._packed: dict[tuple[int, int], tuple[int, bytes]] = {}  # text column and page → hash and bytes when last written

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, column: str) -> Array:
        return self._arrays[column]

    @staticmethod
    def _blank(column: Column, size: int) -> Array:
        if column.empty == 0:
            return np.zeros((size, *column.shape), column.dtype)  # memory the system hands out only when it is written
        return np.full((size, *column.shape), column.empty, column.dtype)

    def add(self, keys: Iterable[str]) -> Array:
        """New rows for keys not yet known, in order; returns the rows of all the keys (int64)."""
        index, wanted = self.index, keys if isinstance(keys, list) else list(keys)
        rows = list(map(index.get, wanted))
        if None in rows:
            fresh: list[str] = []
            for key in wanted:
                if key not in index:
                    index[key] = len(self.keys) + len(fresh)
                    fresh.append(key)
            self._extend(fresh)
            rows = list(map(index.get, wanted))
        return np.array(rows, np.int64)

    def find(self, keys: Iterable[str]) -> Array:
        """The rows of keys, -1 for unknown ones (int64)."""
        return np.array([self.index.get(key, -1) for key in keys], np.int64)

    def _extend(self, fresh: list[str]) -> None:
        first, size = len(self.keys), len(self.keys) + len(fresh)
        if size > self._capacity:
            self.reserve(size + size // 8)
        self.keys.extend(fresh)
        for values in self.text.values():
            values.extend([""] * len(fresh))
        self._dirty.update(range(first // PAGE, (size - 1) // PAGE + 1))

    def reserve(self, size: int) -> None:
        """Makes room for that many rows in all."""
        if size <= self._capacity:
            return
        known, self._capacity = len(self.keys), max(PAGE, -(-size // PAGE) * PAGE)
        for name, column in self.columns.items():
            grown = self._blank(column, self._capacity)
            grown[:known] = self._arrays[name][:known]
            self._arrays[name] = grown

    def mark(self, rows: Array, places: Array | None = None) -> None:
        """Says that these rows changed; of columns apart only these places (one per row), or all."""
        pages = np.asarray(rows) // PAGE
        own = distinct(pages).tolist()
        self._dirty.update(own)
        if self._places:
            everywhere = (page * self._places + place for page in own for place in range(self._places))
            some = everywhere if places is None else distinct(pages * self._places + places).tolist()
            self._dirty_places.update(some)

    def touch(self, row: int) -> None:
        """Says that one row changed, all of it."""
        page = row // PAGE
        self._dirty.add(page)
        if self._places:
            self._dirty_places.update(range(page * self._places, (page + 1) * self._places))

    def nbytes(self) -> int:
        """Memory of the rows there are, without Python's strings and without room for more rows."""
        return sum(array[: len(self.keys)].nbytes for array in self._arrays.values())

    def take_changed(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of each changed page, ``<page>`` or ``<page>.<place>``; forgets that they changed."""
        for page in sorted(self._dirty):
            yield str(page), self._page(page)
        for number in sorted(self._dirty_places):
            yield f"{number // self._places}.{number % self._places}", self._page_apart(*divmod(number, self._places))
        self._dirty.clear()
        self._dirty_places.clear()

    def pages(self) -> Iterator[bytes]:
        """The bytes of all pages there are."""
        for page in range(-(-len(self) // PAGE)):
            yield self._page(page)
            yield from (self._page_apart(page, place) for place in range(self._places))

    def _page(self, page: int) -> bytes:
        rows = slice(page * PAGE, min((page + 1) * PAGE, len(self.keys)))
        parts = [self._packed_text(i, page, values[rows]) for i, values in enumerate((self.keys, *self.text.values()))]
        for name, column in self._near.items():
            cells = self._arrays[name][rows]
            # packing pays for wide columns; a narrow one is written as it lies, and compressed with its batch
            parts.append(pack(cells.ravel()) if column.shape else cells.astype(self._types[name], copy=False).tobytes())
        head = np.array([rows.stop - rows.start, *map(len, parts)], "<u4").tobytes()
        return head + b"".join(parts)

    def _page_apart(self, page: int, place: int) -> bytes:
        rows = slice(page * PAGE, min((page + 1) * PAGE, len(self.keys)))
        parts = [pack(self._arrays[name][rows, place].ravel()) for name in self._apart]
        return np.array([rows.stop - rows.start, *map(len, parts)], "<u4").tobytes() + b"".join(parts)

    def _packed_text(self, column: int, page: int, values: list[str]) -> bytes:
        """Texts change seldom and are costly to pack: each page keeps its last form."""
        mark = hash(tuple(values))
        known = self._packed.get((column, page))
        if known is None or known[0] != mark:
            known = self._packed[column, page] = mark, pack_text(strings(values))
        return known[1]

    def load_page(self, page: str, data: bytes) -> None:
        """Reads one page back. Pages may come in any order and more than once; the last one counts."""
        number, _, place = page.partition(".")
        near = not place
        columns = self._near if near else self._apart
        fields = 1 + len(columns) + (1 + len(self.text) if near else 0)
        size, *lengths = np.frombuffer(data, "<u4", fields).tolist()
        bounds = np.cumsum([4 * fields, *lengths]).tolist()
        parts = [data[a:b] for a, b in pairwise(bounds)]
        if bounds[-1] != len(data):
            raise ValueError(f"state page {page} has {len(data)} bytes, its columns {bounds[-1]}: written by another layout")
        first = int(number) * PAGE
        if len(self.keys) < first + size:
            self._extend([""] * (first + size - len(self.keys)))
        rows = slice(first, first + size)
        if near:
            self.keys[rows] = unpack_text(parts[0], size).to_pylist()
            self.index.update(zip(self.keys[rows], range(first, first + size), strict=True))
            for (_, values), part in zip(self.text.items(), parts[1:], strict=False):
                values[rows] = unpack_text(part, size).to_pylist()
            parts = parts[1 + len(self.text) :]
        for (name, column), part in zip(columns.items(), parts, strict=True):
            if not near:
                shape = column.shape[1:]
                self._arrays[name][rows, int(place)] = unpack(part, size * int(np.prod(shape))).reshape((size, *shape))
            elif column.shape:
                unpack_into(part, self._arrays[name][rows].reshape(-1))
            else:
                self._arrays[name][rows] = np.frombuffer(part, self._types[name], size)
        self._dirty.clear()
        self._dirty_places.clear()


class LayoutError(Exception):
    """State was written by code or settings that lay it out otherwise: whoever reads on would give other answers."""


class State:
    """All tables and entries of one partition of one agent. Tables are made on demand by name.

    ``version`` counts the forms entries have had: raise it when one changes.
    """

    def __init__(self, make: Callable[[str], Table], version: int = 1, verify: Callable[[], None] | None = None) -> None:
        """``verify`` is called when everything has been taken back; it raises LayoutError where the settings do not go with it."""
        self._make, self.version, self._verify = make, version, verify
        self.tables: dict[str, Table] = {}
        self.entries: dict[str, bytes] = {}
        self._touched: set[str] = set()

    def table(self, name: str) -> Table:
        """The table of that name."""
        table = self.tables.get(name)
        if table is None:
            table = self.tables[name] = self._make(name)
        return table

    def layout(self) -> dict[str, str]:
        """How each table there is lies in its pages, and under the empty name the version of the entries."""
        return {"": str(self.version), **{name: table.form for name, table in sorted(self.tables.items())}}

    def check(self, layout: Mapping[str, str]) -> None:
        """Raises LayoutError where rows of that layout cannot be taken back."""
        other = [name for name, form in layout.items() if form != (str(self.version) if name == "" else self.table(name).form)]
        if other:
            what = ", ".join(f"table {name}" if name else f"entries (version {layout['']}, here {self.version})" for name in other)
            raise LayoutError(f"{what}: laid out otherwise than this program and its settings do")

    def put(self, key: str, value: bytes | None) -> None:
        """Sets an entry; None removes it."""
        if value is None:
            self.entries.pop(key, None)
        else:
            # orjson gives bytes that keep the buffer they were written in, 4 KiB at least: as they are, they take many times their size
            self.entries[key] = bytes(memoryview(value))
        self._touched.add(key)

    def take_changed(self) -> list[tuple[bytes, bytes | None]]:
        """Rows for the state topic since the last call: pages as ``t/<table>/<page>``, entries as ``e/<key>``.

        Places of columns apart are ``t/<table>/<page>.<place>``.
        """
        rows: list[tuple[bytes, bytes | None]] = []
        for name in sorted(self.tables):
            rows += [(f"t/{name}/{page}".encode(), data) for page, data in self.tables[name].take_changed()]
        rows += [(f"e/{key}".encode(), self.entries.get(key)) for key in sorted(self._touched)]
        self._touched.clear()
        return rows

    def load(self, key: bytes, value: bytes | None) -> None:
        """Takes one row of the state topic back; later rows of a key replace earlier ones."""
        kind, _, rest = key.decode().partition("/")
        if kind == "e":
            if value is None:
                self.entries.pop(rest, None)
            else:
                self.entries[rest] = value
        else:
            name, _, page = rest.rpartition("/")
            if value is not None:
                self.table(name).load_page(page, value)

    def load_all(self, rows: Mapping[bytes, bytes | None]) -> None:
        """Takes the newest row of every key back."""
        sizes: dict[str, int] = {}
        for key in rows:
            if key.startswith(b"t/"):
                name, _, page = key.decode()[2:].rpartition("/")
                sizes[name] = max(sizes.get(name, 0), (int(page.partition(".")[0]) + 1) * PAGE)
        for name, size in sizes.items():
            self.table(name).reserve(size)
        for key, value in rows.items():
            self.load(key, value)
        if self._verify is not None:
            self._verify()

    def digest(self) -> str:
        """A hash over everything, equal for equal states."""
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(self.tables):
            for page in self.tables[name].pages():
                digest.update(page)
        for key in sorted(self.entries):
            digest.update(key.encode() + b"\0" + self.entries[key])
        return digest.hexdigest()

    def nbytes(self) -> int:
        """Memory of all arrays and entries."""
        return sum(t.nbytes() for t in self.tables.values()) + sum(len(v) for v in self.entries.values())
