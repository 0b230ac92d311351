"""``mdh simulate --devices``: a head end that carries out device commands, with a hub by HTTP or a broker by its topics."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mdh.errors import UsageError
from mdh.simulation.faults import parse_rates

if TYPE_CHECKING:
    from connectors.enterprise.simulator.devices import Answer, Door

PAUSE: Final = 0.3  # seconds between two looks
PATIENCE: Final = 300.0  # seconds that a hub may be away


def run(
    url: str | None, broker: str | None, *, seed: int, faults: str, delay: str, late_by: float, form: str, stop_after: float | None
) -> None:
    """Answers commands until interrupted or for ``stop_after`` seconds: a line on stderr for each answer, at the end counts on stdout."""
    from connectors.enterprise.simulator.devices import FAULTS, Fleet, Manner, step
    from mdh.commands.up import interruptible

    if form not in ("plain", "cim"):
        raise UsageError(f"--form must be plain or cim, not {form!r}")
    if form == "cim" and broker is not None:
        raise UsageError("--form cim speaks HTTP: leave --broker out")
    rates: dict[str, Any] = {**parse_rates(faults, FAULTS)}
    fleet = Fleet(Manner(seed, _range(delay), late_by, **rates))
    ends = None if stop_after is None else time.monotonic() + stop_after
    patiently = _Patience()
    with _door(url, broker, form) as door, interruptible():
        try:
            print("answering device commands; Ctrl-C stops it", file=sys.stderr, flush=True)
            while ends is None or time.monotonic() < ends:
                patiently(lambda: step(fleet, door, time.time(), _told))
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
    off = sum(not on for on in fleet.supplied.values())
    print(json.dumps({**dict(sorted(fleet.counts.items())), "meters": len(fleet.supplied), "disconnected": off}), flush=True)


def _told(answer: Answer) -> None:
    print(f"{answer.device} {answer.action}: {answer.status}{' ' + answer.detail if answer.detail else ''}", file=sys.stderr, flush=True)


class _Patience:
    """A hub that has answered may be away for a while."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._told = False

    def __call__(self, work: Callable[[], None]) -> None:
        """Does it. Raises UsageError where the hub was never there, or is away for too long."""
        import httpx

        from connectors.enterprise.simulator.hub import SimulationError
        from connectors.head_end.publish import PublishError

        try:
            work()
        except (SimulationError, httpx.HTTPError, PublishError) as error:
            if self._last is None or time.monotonic() - self._last > PATIENCE:
                raise UsageError(f"the hub does not take answers: {error}") from None
            if not self._told:
                self._told = True
                print(f"trying again: {error}", file=sys.stderr, flush=True)
            time.sleep(1.0)
        else:
            self._last, self._told = time.monotonic(), False


def _range(text: str) -> tuple[float, float]:
    first, _, last = text.partition("-")
    try:
        low, high = float(first), float(last or first)
    except ValueError:
        raise UsageError(f"--delay {text!r} is no range of seconds such as 1-5") from None
    if not 0 <= low <= high:
        raise UsageError(f"--delay {text!r} must begin at 0 or above and grow")
    return low, high


@contextmanager
def _door(url: str | None, broker: str | None, form: str) -> Iterator[Door]:
    """By the broker if one is named, else by HTTP."""
    import httpx

    from connectors.enterprise.simulator.devices import HttpDoor, KafkaDoor
    from connectors.enterprise.simulator.hub import Hub
    from mdh.running import credentials, hub_url, kafka_of
    from schemas.codec import Codec
    from schemas.topology import load_topology

    if broker is not None:
        door = KafkaDoor(kafka_of(broker, None, None), load_topology(None), Codec())
        try:
            yield door
        finally:
            door.close()
        return
    with httpx.Client(base_url=hub_url(url), timeout=60, trust_env=False, headers=credentials()) as client:
        yield HttpDoor(Hub(client), form)
