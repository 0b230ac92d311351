"""Filters: which items a subscriber wants."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Any, Final

from schemas.topology.subscribers import DeliverySettings, Filter
from schemas.units import resolve

_MEDIA: Final = {"1": "electricity", "4": "heat", "5": "heat", "6": "heat", "7": "gas", "8": "water", "9": "water"}
_DIMENSIONS: Final = {"varh": "electricity", "VAh": "electricity", "W": "electricity", "var": "electricity", "VA": "electricity"}
_UNITS: Final = {"Wh": "electricity", "kWh": "electricity", "MWh": "electricity", "GWh": "electricity", "Gcal": "heat", "GJ": "heat",
                 "MJ": "heat", "m3C": "heat", "therm": "gas", "CCF": "gas", "ft3": "gas", "gal": "water", "L": "water"}  # fmt: skip
_OBIS: Final = re.compile(r"(\d{1,2})(?:-\d{1,3}:\d|\.\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}$)", re.ASCII)
Test = Callable[[str], bool]


def commodity_of(channel: str, unit: str) -> str:
    """What flows through a channel: the medium its OBIS code names, else by the unit where that says it; empty where neither does."""
    code = _OBIS.match(channel)
    if code and code[1] in _MEDIA:
        return _MEDIA[code[1]]
    known = resolve(unit)
    return _DIMENSIONS.get(known.dimension) or _UNITS.get(known.name, "")


def matcher(patterns: Iterable[str]) -> Test:
    """Whether a text equals one of the patterns; ``*`` stands for anything."""
    given = list(patterns)
    exact = {pattern for pattern in given if "*" not in pattern}
    # Only * is special: brackets and question marks of fnmatch would surprise in ids
    loose = [translate(re.sub(r"([\[?])", r"[\1]", pattern)) for pattern in given if "*" in pattern]
    joined = re.compile("|".join(f"(?:{pattern})" for pattern in loose)) if loose else None

    @lru_cache(maxsize=65_536)
    def test(text: str) -> bool:
        return text in exact or (joined is not None and joined.match(text) is not None)

    return test


class Wanted:
    """A compiled filter. Every list that is given must match; an item without that field is not wanted."""

    def __init__(self, filter: Filter, settings: DeliverySettings, region_of: Callable[[str], str] = lambda _: "") -> None:
        """``region_of`` is the region of a service point in master data."""
        self._region_of = region_of
        lists = {name: getattr(filter, name) for name in type(filter).model_fields if name not in ("region", "commodity")}
        self._tests = {name: matcher(patterns) for name, patterns in lists.items() if patterns}
        self._commodities = frozenset(filter.commodity)
        self._region = matcher(filter.region) if filter.region else None
        places = [p for name, region in settings.regions.items() if self._region and self._region(name) for p in region.service_points]
        self._places = matcher(places) if places else None

    def __call__(self, object: str, item: Mapping[str, Any]) -> bool:  # noqa: ARG002 filters are the same for all objects
        """Whether the item is wanted."""
        for name, test in self._tests.items():
            value = item.get(name)
            if not isinstance(value, str) or not test(value):
                return False
        if self._commodities and commodity_of(str(item.get("channel") or ""), str(item.get("unit") or "")) not in self._commodities:
            return False
        return self._region is None or self._in_region(item)

    def _in_region(self, item: Mapping[str, Any]) -> bool:
        assert self._region is not None
        own = item.get("region")
        if isinstance(own, str) and own:
            return self._region(own)
        point = item.get("service_point")
        if not isinstance(point, str) or not point:
            return False
        return (self._places is not None and self._places(point)) or self._region(self._region_of(point))
