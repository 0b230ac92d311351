"""Writers of files: pure functions from items (or blocks of finals) to bytes. The same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from connectors.subscribers.parcel import Parcel
from connectors.subscribers.writers import cim, mdus, nem12, tables, texts
from connectors.subscribers.writers.content import Content, FormatError, block_of
from schemas.block import FinalBlock

__all__ = ["WRITERS", "Content", "FormatError", "written"]

WRITERS: Final[dict[str, Callable[[Parcel], Content]]] = {
    "json": lambda parcel: texts.json_document(parcel.items),
    "ndjson": lambda parcel: texts.ndjson(parcel.items),
    "csv": lambda parcel: tables.csv(tables.table(parcel.object, parcel.units[0].schema, parcel.items, block_of(parcel))),
    "parquet": lambda parcel: tables.parquet(tables.table(parcel.object, parcel.units[0].schema, parcel.items, block_of(parcel))),
    "nem12": lambda parcel: nem12.document(_finals(parcel), parcel.at // 1000),
    "mdus": lambda parcel: mdus.document(_finals(parcel), parcel.id, parcel.at // 1000),
    "cim": lambda parcel: cim.document(_finals(parcel), parcel.id, parcel.at // 1000),
}


def written(format: str, parcel: Parcel) -> Content:
    """The items of a parcel in a format. Raises FormatError where nothing of it fits."""
    content = WRITERS[format](parcel)
    if not content.items:
        raise FormatError(content.left_out[0] if content.left_out else "there is nothing in it")
    return content


def _finals(parcel: Parcel) -> FinalBlock:
    block = block_of(parcel)
    if block is None:
        raise FormatError(f"this format does not hold {parcel.object}")
    return block
