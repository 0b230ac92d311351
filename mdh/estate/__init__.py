"""A small real estate: homes, a solar home, a gas meter, water meters and a heat meter, with what they must add up to.

The files are cut from openly licensed data sets by :mod:`mdh.estate.build`; sources and licences are in ATTRIBUTION.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent
MASTER: Final = FOLDER / "master.ndjson"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the estate and what is in it. ``channels`` maps ``device/channel`` to its expected figures."""

    path: Path
    commodity: str
    about: str
    channels: dict[str, dict[str, Any]]

    @property
    def reads(self) -> int:
        """Values in the file: intervals and register reads."""
        return sum(int(figures["count"]) for figures in self.channels.values())


def parts() -> list[Part]:
    """All files in the order a demo sends them."""
    expected = json.loads((FOLDER / "expected.json").read_text())
    return [Part(FOLDER / name, item["commodity"], item["about"], item["channels"]) for name, item in expected.items()]


def master_lines() -> list[dict[str, Any]]:
    """The master data, one object per channel."""
    return [json.loads(line) for line in MASTER.read_text().splitlines()]
