"""One deterministic load in two shapes: payloads of many reads for the hub, one message per read for the peers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import orjson

from mdh.simulation.chance import below, draw, hits
from mdh.simulation.faults import ACTUAL, MISSING
from mdh.simulation.loads import day_loads
from mdh.simulation.writers import CHANNEL, json_payload
from streams.calendar import wall_clock

Ints = npt.NDArray[np.int64]
SECONDS = 900
SLOTS = 96
FIRST_DAY = (date(2025, 3, 24) - date(1970, 1, 1)).days
BLOCK = 2000  # channels in a payload


@dataclass(frozen=True, slots=True)
class Load:
    """Quarter hours of ``channels`` channels over ``days`` days, UTC; one channel day in 25 has a fault the rules must answer."""

    channels: int
    days: int
    seed: int = 7

    @property
    def reads(self) -> int:
        """All of them."""
        return self.channels * self.days * SLOTS

    def devices(self) -> list[str]:
        """Names by number."""
        return [f"B{number:07d}" for number in range(self.channels)]

    def day(self, day: int, rows: Ints) -> tuple[Ints, npt.NDArray[np.int8]]:
        """Wh and how each value is sent, channel × slot. ``day`` counts from the first of the load."""
        number = FIRST_DAY + day
        values = day_loads(self.seed, rows, number, wall_clock("UTC", number, SECONDS), SECONDS)
        states = np.full(values.shape, ACTUAL, np.int8)
        kind = below(draw(self.seed, "kind", rows, number), 4)
        slot = 4 + below(draw(self.seed, "slot", rows, number), SLOTS - 12)
        for row in np.flatnonzero(hits(draw(self.seed, "hurt", rows, number), 0.04)).tolist():
            at = int(slot[row])
            if kind[row] == 0:
                values[row, at] = int(values[row].max()) * 40 + 5000
            elif kind[row] == 1:
                values[row, at] = -values[row, at] - 1
            elif kind[row] == 2:
                states[row, at : at + 1 + at % 4] = MISSING
            else:
                values[row] = 0
        return values, states

    def payloads(self) -> Iterator[tuple[str, str, bytes]]:
        """Source, name and bytes of each payload: many channels × one day. A channel has one source, so its days stay in order."""
        devices = self.devices()
        for day in range(self.days):
            for first in range(0, self.channels, BLOCK):
                rows = np.arange(first, min(first + BLOCK, self.channels))
                values, states = self.day(day, rows)
                start = (FIRST_DAY + day) * 86_400
                names = devices[first : first + len(rows)]
                source = f"bench-{first // BLOCK % 16}"
                yield source, f"{day:03d}-{first:07d}", json_payload(source, names, start, SECONDS, values, states, [])

    def messages(self, channels: int, days: int) -> Iterator[tuple[bytes, bytes]]:
        """Key and bytes of each read of the first channels and days, interval after interval as meters send them."""
        devices, rows = self.devices(), np.arange(channels)
        for day in range(days):
            values, states = self.day(day, rows)
            for slot in range(SLOTS):
                start = (FIRST_DAY + day) * 86_400 + slot * SECONDS
                for row in range(channels):
                    missing = states[row, slot] == MISSING
                    read = {
                        "device": devices[row], "channel": CHANNEL, "unit": "kWh", "seconds": SECONDS, "start": start,
                        "value": None if missing else int(values[row, slot]) * 1000,
                    }  # fmt: skip
                    yield f"{devices[row]}|{CHANNEL}".encode(), orjson.dumps(read)
