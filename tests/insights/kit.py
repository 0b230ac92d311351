"""Final blocks as VEE would write them, folded into an insights agent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas import conditions
from schemas.block import FINALIZED, FinalBlock, strings
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology.insights import InsightsSettings
from streams import calendar
from streams.insights.fold import InsightsFold
from streams.runtime.fold import Message, Result

Array = npt.NDArray[Any]
CODEC = Codec()
FIRST = 20_000  # a Tuesday of 2024, as a local day number
ZONE = "Europe/Berlin"


def day_of(rng: np.random.Generator, level: float = 10.0, slots: int = 48) -> Array:
    """A household's day: low at night, high in the evening, some noise; kWh."""
    hours = np.arange(slots) * 24 / slots
    shape = 0.4 + 0.5 * np.exp(-(((hours - 8) / 2) ** 2)) + 1.2 * np.exp(-(((hours - 19.5) / 2.5) ** 2))
    return level * shape / shape.sum() * rng.uniform(0.7, 1.3, slots)


def block_of(
    days: dict[tuple[str, int], Array], *, seconds: int = 1800, version: int = 1, state: int = FINALIZED,
    condition: int | Array = conditions.REGULAR, unit: str = "kWh", payload: str = "p",
) -> FinalBlock:  # fmt: skip
    """A block of the given (device, day) → values."""
    rows, counts = len(days), np.array([len(values) for values in days.values()], np.int32)
    day = np.array([number for _, number in days], np.int32)
    nothing, zeros = np.zeros(0, np.int64), np.zeros(rows, np.int32)
    values = np.round(np.concatenate(list(days.values())) * 1e6).astype(np.int64)
    return FinalBlock(
        id=identity(payload, version, int(day[0])), payload=payload, source="hes", device=strings([device for device, _ in days]),
        channel=strings(["1.8.0"] * rows), unit=strings([unit] * rows), service_point=strings(["SP"] * rows), account=strings([""] * rows),
        zone=strings([ZONE] * rows), direction=np.ones(rows, np.int8), day=day, start=calendar.start_of(ZONE, day.astype(np.int64)),
        seconds=np.full(rows, seconds, np.int32), count=counts, reads=zeros, version=np.full(rows, version, np.int64),
        replaces=np.full(rows, version - 1, np.int64), state=np.full(rows, state, np.int8), dials=zeros.astype(np.int8),
        multiplier=np.full(rows, 1_000_000, np.int64), values=values, conditions=np.broadcast_to(condition, values.shape).astype(np.int32),
        methods=np.zeros(len(values), np.int8), times=nothing, received_count=zeros, received=nothing,
        received_conditions=nothing.astype(np.int32), before_count=zeros, before=nothing, before_conditions=nothing.astype(np.int32),
    ).check()  # fmt: skip


class Agent:
    """One insights fold and what it has said."""

    def __init__(self, **settings: Any) -> None:
        self.fold = InsightsFold(InsightsSettings(**settings), 0)
        self.said: list[dict[str, Any]] = []
        self.rows: dict[bytes, bytes | None] = {}
        self._number = 0

    def apply(self, kind: str, body: Any) -> Result:
        """Folds a message in; keeps the exceptions as a reader would see them."""
        self._number += 1
        result = self.fold.apply(Message(kind, body, identity("m", self._number), "p"))
        self.said += [CODEC.decode(CODEC.encode("VeeException", output.body)) for output in result.outputs]
        return result

    def days(self, days: dict[tuple[str, int], Array], **options: Any) -> Result:
        """Folds one block of days in."""
        return self.apply("FinalBlock", block_of(days, **options))

    def live(self, devices: list[str], days: range, *, seed: int = 1, level: float = 10.0) -> None:
        """Ordinary days of some devices, one block per day."""
        for day in days:
            rng = np.random.default_rng([seed, day])
            self.days({(device, day): day_of(rng, level) for device in devices})

    def restored(self) -> Agent:
        """A new agent with the state of this one as read back from its state topic."""
        agent = Agent(**self.fold.settings.model_dump())
        for key, value in self.rows.items():
            agent.fold.state.load(key, value)
        agent._number, agent.rows = self._number, dict(self.rows)
        return agent

    def commit(self) -> None:
        """What the runtime writes to the state topic."""
        self.rows = {**self.rows, **dict(self.fold.state.take_changed())}
