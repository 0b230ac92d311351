"""The default VEE rules and time-of-use day sums, one read at a time, in plain Python. Both peers use it, each in its own framework.

It stands on nothing of the hub, so that agreeing results mean something. A channel's state is its open day: ``{"day", "have", "values",
"codes", "twice"}``; when the day has all its reads the result is returned and the next day begins.
"""

from __future__ import annotations

from datetime import UTC, datetime

DAY = 86_400
FLOOR = 1_000_000  # millionths
TOLERANCE = 2000  # percent
FEWEST = 20
LONGEST_GAP = 7_200
MISSING, FLAT, BETWEEN, SUSPECT, REGULAR = 110_000, 310_000, 360_000, 450_000, 500_000


def blank(day: int, slots: int) -> dict:
    """The state of a channel whose day begins."""
    return {"day": day, "have": 0, "values": [0] * slots, "codes": [0] * slots, "twice": 0}


def take(state: dict | None, read: dict) -> tuple[dict, dict | None]:
    """One read in: the new state, and the day's result once it is complete. A value of None is reported missing."""
    seconds, at = read["seconds"], read["start"]
    day, slots = at // DAY, DAY // seconds
    if at % seconds or read["unit"] != "kWh":
        raise ValueError("wrong interval or unit")
    if state is None or day > state["day"]:
        state = blank(day, slots)
    elif day < state["day"]:
        return state, None  # late: a day that is closed
    slot, value = at % DAY // seconds, read["value"]
    code = MISSING if value is None else REGULAR
    before = state["codes"][slot]
    if before == 0:
        state["have"] += 1
    elif before == code and state["values"][slot] == (value or 0):
        state["twice"] += 1
        return state, None
    elif code < before:
        return state, None  # a worse value never replaces a better one
    state["values"][slot], state["codes"][slot] = value or 0, code
    if state["have"] < slots:
        return state, None
    return state, finish(state, read)


def finish(state: dict, read: dict) -> dict:
    """Validates, estimates and sums a complete day."""
    values, codes, seconds = list(state["values"]), list(state["codes"]), read["seconds"]
    found = {}
    negative = [i for i, value in enumerate(values) if value < 0]
    if negative:
        found["negative-consumption"] = len(negative)
    spikes = _spikes(values, codes)
    if spikes:
        found["interval-spike"] = len(spikes)
    for i in (*negative, *spikes):
        codes[i] = min(codes[i], SUSPECT)
    _interpolate(values, codes, seconds)
    missing = sum(code < 200_000 for code in codes)
    if not missing and abs(sum(values)) <= 1000:
        found["zero-consumption"] = len(values)
    if missing:
        found["missing-quantity"] = missing
    return {
        "device": read["device"], "channel": read["channel"], "day": state["day"], "values": values, "codes": codes,
        "found": found, "tou": _sums(values, codes, state["day"], seconds),
    }  # fmt: skip


def _spikes(values: list[int], codes: list[int]) -> list[int]:
    sizes = [abs(v) for v, code in zip(values, codes, strict=True) if code >= 300_000]
    if len(sizes) < FEWEST:
        return []
    third = sorted(sizes)[-3]
    limit = max(FLOOR, third + third * TOLERANCE // 100)
    return [i for i, (v, code) in enumerate(zip(values, codes, strict=True)) if code >= 300_000 and abs(v) > limit]


def _interpolate(values: list[int], codes: list[int], seconds: int) -> None:
    known = list(codes)
    i = 0
    while i < len(values):
        if known[i] >= 200_000:
            i += 1
            continue
        end = i
        while end < len(values) and known[end] < 200_000:
            end += 1
        left = values[i - 1] if i else None
        right = values[end] if end < len(values) else None
        size = end - i
        if size * seconds <= LONGEST_GAP and (left is not None or right is not None):
            a = right if left is None else left
            b = left if right is None else right
            parts, sent = size + 1, 0
            for k in range(1, parts):
                running = k * a + ((b - a) * k * (k + 1) + parts) // (2 * parts)
                values[i + k - 1], codes[i + k - 1] = running - sent, FLAT if left is None or right is None else BETWEEN
                sent = running
        i = end


def _sums(values: list[int], codes: list[int], day: int, seconds: int) -> dict[str, int]:
    workday = datetime.fromtimestamp(day * DAY, UTC).weekday() < 5
    sums: dict[str, int] = {}
    for i, (value, code) in enumerate(zip(values, codes, strict=True)):
        if code < 200_000:
            continue
        hour = i * seconds // 3600
        period = "offpeak"
        if workday and 15 <= hour < 21:
            period = "peak"
        elif workday and 7 <= hour < 22:
            period = "shoulder"
        sums[period] = sums.get(period, 0) + value
    return sums
