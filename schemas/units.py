"""Units of measure: one spelling for each, its quantity, and exact ratios inside a dimension."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: canonical spelling, physical quantity, dimension (units of one dimension convert), ratio to its base unit."""

    name: str
    quantity: str
    dimension: str
    ratio: Fraction


def _unit(name: str, quantity: str, dimension: str, ratio: str | int = 1) -> Unit:
    return Unit(name, quantity, dimension, Fraction(ratio))


UNITS: Final = {
    u.name.lower(): u
    for u in (
        _unit("Wh", "energy", "Wh"),
        _unit("kWh", "energy", "Wh", 1000),
        _unit("MWh", "energy", "Wh", 1_000_000),
        _unit("GWh", "energy", "Wh", 1_000_000_000),
        _unit("J", "energy", "Wh", "1/3600"),
        _unit("MJ", "energy", "Wh", "10000/36"),
        _unit("GJ", "energy", "Wh", "10000000/36"),
        _unit("Gcal", "energy", "Wh", 1_163_000),
        _unit("therm", "energy", "Wh", "105505585257348/3600000000"),
        _unit("varh", "reactive-energy", "varh"),
        _unit("kvarh", "reactive-energy", "varh", 1000),
        _unit("Mvarh", "reactive-energy", "varh", 1_000_000),
        _unit("VAh", "apparent-energy", "VAh"),
        _unit("kVAh", "apparent-energy", "VAh", 1000),
        _unit("W", "power", "W"),
        _unit("kW", "power", "W", 1000),
        _unit("MW", "power", "W", 1_000_000),
        _unit("var", "reactive-power", "var"),
        _unit("kvar", "reactive-power", "var", 1000),
        _unit("VA", "apparent-power", "VA"),
        _unit("kVA", "apparent-power", "VA", 1000),
        _unit("L", "volume", "m3", "1/1000"),
        _unit("m3", "volume", "m3"),
        _unit("ft3", "volume", "m3", "28316846592/1000000000000"),
        _unit("CCF", "volume", "m3", "28316846592/10000000000"),
        _unit("gal", "volume", "m3", "3785411784/1000000000000"),
        _unit("m3C", "heat-flow", "m3C"),
        _unit("C", "temperature", "C"),
        _unit("V", "voltage", "V"),
        _unit("A", "current", "A"),
        _unit("Hz", "frequency", "Hz"),
        _unit("pf", "power-factor", "1"),
        _unit("count", "count", "1"),
    )
}
_ALIASES: Final = {
    "m³": "m3",
    "cf": "ft3",
    "cft": "ft3",
    "litre": "l",
    "litres": "l",
    "liter": "l",
    "liters": "l",
    "m3xc": "m3c",
    "": "count",
}


@lru_cache(1024)
def resolve(text: str) -> Unit:
    """The unit of any common spelling (``KWH``, ``kVArh``, ``m³``). An unknown one is kept as its own dimension."""
    word = text.strip().lower()
    known = UNITS.get(_ALIASES.get(word, word))
    return known or Unit(text.strip(), "other", text.strip(), Fraction(1))


def convert(micros: int, source: str, target: str) -> int:
    """A value in millionths from one unit to another, rounded half to even. Raises ValueError across dimensions."""
    a, b = resolve(source), resolve(target)
    if a.dimension != b.dimension:
        raise ValueError(f"{source} does not convert to {target}")
    return round(Fraction(micros) * a.ratio / b.ratio)
