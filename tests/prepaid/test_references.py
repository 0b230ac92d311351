"""Charges against the costs a published feed gives: the Green Button sample of nine days whose price changes by the hour."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from connectors import safe_xml
from tests.prepaid.driver import Driver, settings

FEED = "greenbutton_objects/data/electricity/TestGBDataHourlyNineDaysBinnedDaily.xml"
LOCAL = timedelta(hours=-5)  # tzOffset of the feed
COST = 1_000  # costs count 10⁻⁵ dollars: so many to the cent


def hours(path: Path) -> list[tuple[datetime, int, int]]:
    """Local hour, Wh and cost of each reading."""
    found = []
    for reading in safe_xml.parsed(path.read_bytes()).iter("{*}IntervalReading"):
        second, value, cost = (int(next(reading.iter(f"{{*}}{name}")).text or 0) for name in ("start", "value", "cost"))
        found.append((datetime.fromtimestamp(second, UTC) + LOCAL, value, cost))
    return found


def weekend(at: datetime) -> bool:
    """The feed prices Friday from 19:00 as weekend and Sunday from 19:00 as working day: its weekdays are those of UTC."""
    return (at - LOCAL).weekday() >= 5


@pytest.mark.shared_data
def test_the_costs_of_a_feed_with_prices_by_the_hour(shared_data: Path) -> None:
    """The price plan is read off the first working day and the first weekend hours; the other days must then come to their own costs."""
    readings = hours(shared_data / FEED)
    assert (len(readings), sum(value for _, value, _ in readings), sum(cost for *_, cost in readings)) == (216, 199_563, 2_205_567)
    plan: dict[tuple[bool, int], int] = {}
    for at, value, cost in readings:
        assert cost % value == 0, "each hour has a whole price"
        plan.setdefault((weekend(at), at.hour), cost // value)
    rates = {f"p{rate}": str(Decimal(rate).scaleb(-2)) for rate in set(plan.values())}  # 10⁻⁵ dollars a Wh are cents a kWh
    assert sorted(map(Decimal, rates.values())) == [Decimal(cents) / 100 for cents in (3, 6, 9, 12, 15, 18, 24, 30)]
    to = Driver(settings(tariffs=[{"id": "home", "versions": [{"rate": "0", "rates": rates}]}]), zone="UTC", at="2013-12-31T12:00")
    to.ask("enrol", terms={"from": "2014-01-01", "opening": 10_000})
    days: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    costs: dict[str, int] = defaultdict(int)
    for at, value, cost in readings:
        days[at.date().isoformat()][f"p{plan[weekend(at), at.hour]}"] += Decimal(value).scaleb(-3)
        costs[at.date().isoformat()] += cost
    total = 0
    for day, lines in days.items():
        to.use(day, str(sum(lines.values())), tou={name: str(quantity) for name, quantity in lines.items()})
        total += costs[day]
        charged = sum(-posting["change"] for posting in to.said["Posting"] if posting["component"] == "energy")
        assert charged == round(Decimal(total) / COST), day
    assert charged == 2_206  # 22.05567 dollars
    to.check()
