"""The default VEE rules and time-of-use day sums in Polars: a frame with one row per read, channel after channel, a whole day of each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from benchmarks.peers.rules import BETWEEN, DAY, FEWEST, FLAT, FLOOR, LONGEST_GAP, SUSPECT, TOLERANCE


def frame(values: Any, codes: Any, slots: int) -> pl.DataFrame:
    """Columns of reads: channel number, slot, value in millionths, condition."""
    channels = len(values) // slots
    return pl.DataFrame(
        {
            "channel": np.repeat(np.arange(channels, dtype=np.uint32), slots),
            "slot": np.tile(np.arange(slots, dtype=np.int16), channels),
            "value": values,
            "code": codes,
        }
    ).with_columns(pl.col("channel").set_sorted())


def finish(reads: pl.DataFrame, day: int, seconds: int) -> tuple[Any, Any, dict[str, dict[int, int]], dict[str, Any]]:
    """Final values and conditions (channel × slot), findings by rule and channel, sums by time of use."""
    value, code = pl.col("value"), pl.col("code")
    size = pl.when(code >= 300_000).then(value.abs())
    per = reads.lazy().group_by("channel", maintain_order=True).agg(
        third=size.top_k(3).min(), top=size.max(), usable=size.count(), low=value.min(), missing=(code < 200_000).any()
    )  # fmt: skip
    limit = pl.max_horizontal(pl.lit(FLOOR), pl.col("third") + pl.col("third") * TOLERANCE // 100)
    per = per.with_columns(limit=pl.when(pl.col("usable") >= FEWEST).then(limit)).collect()
    hurt = per.filter((pl.col("low") < 0) | (pl.col("top") > pl.col("limit")) | pl.col("missing")).select("channel", "limit")
    bad = reads.with_row_index("at").join(hurt, on="channel", maintain_order="left")
    spike = (code >= 300_000) & (value.abs() > pl.col("limit"))
    bad = bad.with_columns(negative=value < 0, spike=spike.fill_null(value=False))
    bad = bad.with_columns(code=pl.when(pl.col("negative") | pl.col("spike")).then(pl.min_horizontal(code, SUSPECT)).otherwise(code))
    bad = _interpolated(bad, seconds)
    final = reads.with_columns(
        value=reads["value"].scatter(bad["at"], bad["value"]), code=reads["code"].scatter(bad["at"], bad["code"])
    )  # fmt: skip
    periods = _periods(day, seconds)
    there = pl.when(code >= 200_000).then(value).otherwise(0)
    totals = final.lazy().group_by("channel", maintain_order=True).agg(
        total=value.sum(), empty=(code < 200_000).sum(), slots=pl.len(),
        **{name: there.filter(pl.col("slot").is_in(slots)).sum() for name, slots in periods.items()},
    ).collect()  # fmt: skip
    found = {
        "negative-consumption": _counted(bad, "negative"),
        "interval-spike": _counted(bad, "spike"),
        "missing-quantity": _numbers(totals.filter(pl.col("empty") > 0), "empty"),
        "zero-consumption": _numbers(totals.filter((pl.col("empty") == 0) & (pl.col("total").abs() <= 1000)), "slots"),
    }
    width = DAY // seconds
    matrices = (final[name].cast(pl.Int64).to_numpy().reshape(-1, width) for name in ("value", "code"))
    return *matrices, found, {name: totals[name].to_numpy() for name in periods}


def _interpolated(bad: pl.DataFrame, seconds: int) -> pl.DataFrame:
    """Gaps up to the longest filled on a straight line with an exact sum, flat from one side."""
    gap = pl.col("code") < 200_000
    known = pl.when(~gap).then(pl.col("value"))
    bad = bad.with_columns(run=pl.struct("channel", gap).rle_id(), gap=gap).with_columns(
        left=known.forward_fill().over("channel"), right=known.backward_fill().over("channel"),
        k=pl.int_range(pl.len()).over("run") + 1, size=pl.len().cast(pl.Int64).over("run"),
    )  # fmt: skip
    both = pl.col("left").is_not_null() & pl.col("right").is_not_null()
    a, b = pl.coalesce("left", "right"), pl.coalesce("right", "left")
    parts, k = pl.col("size") + 1, pl.col("k")

    def running(k: pl.Expr) -> pl.Expr:
        return k * a + ((b - a) * k * (k + 1) + parts) // (2 * parts)

    fill = pl.col("gap") & (pl.col("size") * seconds <= LONGEST_GAP) & a.is_not_null()
    return bad.with_columns(
        value=pl.when(fill).then(running(k) - running(k - 1)).otherwise(pl.col("value")),
        code=pl.when(fill).then(pl.when(both).then(BETWEEN).otherwise(FLAT)).otherwise(pl.col("code")).cast(pl.Int32),
    )


def _periods(day: int, seconds: int) -> dict[str, list[int]]:
    """The slots of each period of the day."""
    workday = datetime.fromtimestamp(day * DAY, UTC).weekday() < 5
    periods: dict[str, list[int]] = {}
    for slot in range(DAY // seconds):
        hour = slot * seconds // 3600
        name = "offpeak" if not workday or not 7 <= hour < 22 else "peak" if 15 <= hour < 21 else "shoulder"
        periods.setdefault(name, []).append(slot)
    return periods


def _counted(bad: pl.DataFrame, column: str) -> dict[int, int]:
    found = bad.filter(pl.col(column)).group_by("channel").len()
    return _numbers(found, "len")


def _numbers(found: pl.DataFrame, column: str) -> dict[int, int]:
    return dict(zip(found["channel"].to_list(), found[column].to_list(), strict=True))
