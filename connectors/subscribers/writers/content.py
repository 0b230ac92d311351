"""What a writer gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from connectors.subscribers.parcel import Parcel
from schemas.block import FinalBlock


class FormatError(ValueError):
    """Nothing of what was given fits the format; one line says why."""


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, how many items are in it, and why each of the others is not."""

    data: bytes
    items: int
    left_out: list[str] = field(default_factory=list)


def block_of(parcel: Parcel) -> FinalBlock | None:
    """The finals of a parcel in one block; None where its items are others."""
    blocks = [unit.block for unit in parcel.units if unit.block is not None]
    return FinalBlock.join(blocks) if blocks else None
