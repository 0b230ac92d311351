"""Writers of files: functions from items (or blocks of finals) to bytes. The same input, and the same past of it, gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from connectors.subscribers.parcel import Parcel
from connectors.subscribers.past import Past
from connectors.subscribers.writers import cim, mdus, nem12, nem13, tables, texts
from connectors.subscribers.writers.content import Content, FormatError, block_of
from schemas.block import FinalBlock

__all__ = ["WRITERS", "Content", "FormatError", "written"]

WRITERS: Final[dict[str, Callable[[Parcel, Past | None], Content]]] = {
    "json": lambda parcel, _: texts.json_document(parcel.items),
    "ndjson": lambda parcel, _: texts.ndjson(parcel.items),
    "csv": lambda parcel, _: tables.csv(tables.table(parcel.object, parcel.units[0].schema, parcel.items, block_of(parcel))),
    "parquet": lambda parcel, _: tables.parquet(tables.table(parcel.object, parcel.units[0].schema, parcel.items, block_of(parcel))),
    "nem12": lambda parcel, past: nem12.document(_finals(parcel), parcel.at // 1000, past),
    "nem13": lambda parcel, past: nem13.document(_finals(parcel), parcel.at // 1000, past),
    "mdus": lambda parcel, _: mdus.document(_finals(parcel), parcel.id, parcel.at // 1000),
    "cim": lambda parcel, _: cim.document(_finals(parcel), parcel.id, parcel.at // 1000),
}


def written(format: str, parcel: Parcel, past: Past | None = None) -> Content:
    """The items of a parcel in a format, with what ``past`` has of the days and reads around them.

    Raises FormatError where nothing of it fits, AwayError where ``past`` cannot be asked.
    """
    content = WRITERS[format](parcel, past)
    if not content.items:
        raise FormatError(content.left_out[0] if content.left_out else "there is nothing in it")
    return content


def _finals(parcel: Parcel) -> FinalBlock:
    block = block_of(parcel)
    if block is None:
        raise FormatError(f"this format does not hold {parcel.object}")
    return block
