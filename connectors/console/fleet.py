"""Meters by the ways they are reached: head end, concentrator (DCU), region; and how long ago each was heard of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

from connectors.head_end.listing import Rows, clickhouse_time
from connectors.rights.scope import Within
from connectors.todo.scans import HEARD

SIDES: Final = ("head_end", "dcu", "region")
BANDS: Final[Mapping[str, str]] = {
    "fresh": "last >= {until:DateTime('UTC')} - INTERVAL 2 DAY",
    "late": "last < {until:DateTime('UTC')} - INTERVAL 2 DAY AND last >= {until:DateTime('UTC')} - INTERVAL 4 DAY",
    "silent": "last < {until:DateTime('UTC')} - INTERVAL 4 DAY",
}
"""How long ago a meter delivered its newest measured value, counted from the begin of that day."""
LOOK_BACK: Final = 14  # days; who was not heard of in them is silent
# Devices of master data and devices that were heard of, side by side; the head end of master data counts more than where reads came from
_FLEET: Final = f"""
SELECT device, last, if(named != '', named, source) AS head_end, dcu, region, point AS service_point FROM (
    SELECT device, max(last) AS last, max(source) AS source, max(named) AS named, max(dcu) AS dcu, max(point) AS point FROM (
        SELECT device, maxIf(day_start, {HEARD}) AS last, argMax(source, day_start) AS source, '' AS named, '' AS dcu,
            argMax(service_point, day_start) AS point
        FROM final_days
        WHERE day >= toDate32({{until:DateTime('UTC')}}) - {LOOK_BACK} AND day <= toDate32({{until:DateTime('UTC')}})
        GROUP BY device
        UNION ALL
        SELECT id, toDateTime(0, 'UTC'), '', JSONExtractString(attributes, 'head_end'),
            if(JSONExtractString(attributes, 'dcu') != '', JSONExtractString(attributes, 'dcu'),
                JSONExtractString(attributes, 'attributes', 'dcu')), ''
        FROM master WHERE kind = 'device'
        UNION ALL
        SELECT device, toDateTime(0, 'UTC'), '', '', '', service_point FROM master WHERE kind = 'install'
    ) GROUP BY device
) AS known LEFT JOIN (
    SELECT id, argMax(JSONExtractString(attributes, 'region'), span) AS region FROM master WHERE kind = 'service_point' GROUP BY id
) AS places ON places.id = known.point
WHERE INSIDE
"""


def communication(reader: Rows, until: datetime, area: Within) -> list[dict[str, Any]]:
    """How many meters there are behind each head end, concentrator and region, and how many in each band; one row without any: all."""
    counts = ", ".join(f"countIf({condition}) AS {band}" for band, condition in BANDS.items())
    marks = ", ".join(f"grouping({side}) AS by_{side}" for side in SIDES)
    sets = ", ".join(f"({side})" for side in SIDES)
    sql = (
        f"SELECT {', '.join(SIDES)}, {marks}, count() AS meters, {counts} FROM ({_inside(area)}) "
        f"GROUP BY GROUPING SETS ({sets}, ()) ORDER BY silent DESC, meters DESC, {', '.join(SIDES)} LIMIT 400"
    )
    return reader.rows(sql, {"until": clickhouse_time(until), **area.parameters})


def _inside(area: Within) -> str:
    return _FLEET.replace("INSIDE", area.on("known.device", "device"))


def side_of(row: Mapping[str, Any]) -> str:
    """Which side a row of :func:`communication` is about; empty for the whole."""
    return next((side for side in SIDES if row[f"by_{side}"] == 0), "")


_ESTIMATED: Final = """
SELECT device, argMax(point, day) AS service_point, argMax(holder, day) AS account, max(start) AS last, sum(n) AS estimated,
    sum(due) AS expected
FROM (
    SELECT device, day, day_start AS start, service_point AS point, account AS holder,
        arrayCount(c -> c >= 300000 AND c < 450000, conditions) AS n, arrayCount(c -> c > 0, conditions) AS due
    FROM final_days FINAL
    WHERE INSIDE AND seconds > 0 AND day >= {since:Date32} AND day < {until:Date32}
    SETTINGS do_not_merge_across_partitions_select_final = 1
) GROUP BY device HAVING estimated > 0 ORDER BY estimated DESC, device LIMIT {most:UInt32}
"""


def estimated(reader: Rows, since: date, until: date, most: int, area: Within) -> list[dict[str, Any]]:
    """Meters with estimated interval values on local days [since, until): how many, of how many that were due; the most first."""
    sql = _ESTIMATED.replace("INSIDE", area.on("service_point"))
    return reader.rows(sql, {**area.parameters, "since": since.isoformat(), "until": until.isoformat(), "most": most})


def meters(reader: Rows, filters: Mapping[str, str], until: datetime, most: int, area: Within) -> list[dict[str, Any]]:
    """Meters behind a head end, concentrator or in a region (``-``: none), of a band; when they were heard of last."""
    where = [f"{side} = {{{side}:String}}" for side in SIDES if side in filters]
    if filters.get("heard") in BANDS:
        where.append(f"({BANDS[filters['heard']]})")
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    sql = (
        f"SELECT device, service_point, '' AS account, nullIf(last, toDateTime(0, 'UTC')) AS last, head_end, dcu, region "
        f"FROM ({_inside(area)}){condition} ORDER BY device LIMIT {most}"
    )
    named = {side: "" if filters[side] == "-" else filters[side] for side in SIDES if side in filters}
    return reader.rows(sql, {**named, **area.parameters, "until": clickhouse_time(until)})
