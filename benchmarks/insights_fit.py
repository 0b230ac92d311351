"""Fits the forests of insights to faults injected into real loads: ``python -m benchmarks.insights_fit [DATA]`` writes ``forest.npz``.

Loads are every second home of ``mdh bench anomaly`` (the others are never touched) and single homes of other sources, half-hourly ones
also as hours. The limits are those at which days of homes left out of the fit (three folds) are told as often as budgeted. Needs
LightGBM, which nothing else here does: ``pip install lightgbm``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.anomaly import ACUTE, DAY, FITTED, Meter, block_of, halves, meters_of, with_fault
from streams.insights import kernel
from streams.insights.profiles import Profiles, make_table
from streams.insights.trees import FILE, Forest
from streams.runtime.state import State

Array = npt.NDArray[Any]
REPEATS, FOLDS, SEED = 10, 3, 11
TREES = (70, 140)  # acute, lasting
BUDGET = (0.15, 0.8)  # told a meter-year, of acute and of lasting faults, in homes left out; the agent says less, as it adapts once it has
QUIET = 7
_PARAMETERS = {
    "objective": "binary", "learning_rate": 0.08, "num_leaves": 12, "min_data_in_leaf": 80, "bagging_fraction": 0.7, "bagging_freq": 1,
    "feature_fraction": 0.3, "lambda_l2": 5.0, "verbose": -1, "num_threads": 2, "deterministic": True, "force_row_wise": True, "seed": SEED,
}  # fmt: skip


def _timed(name: str, at: Array, values: Array, seconds: int) -> Meter:
    at = at.astype("datetime64[s]").astype(np.int64)
    first = int(at.min() // DAY)
    loads = np.full((int(at.max() // DAY) - first + 1, DAY // seconds), np.nan)
    loads[at // DAY - first, at % DAY // seconds] = values
    return Meter(name, first + 1, loads[1:-1])


def single_homes(data: Path) -> Iterator[Meter]:
    """Homes that come alone."""

    def read(file: str, time: str, value: str, shape: str) -> tuple[Array, Array]:
        table = pl.read_csv(data / file, infer_schema_length=0)
        at = table[time].str.slice(0, 19).str.to_datetime(shape).to_numpy()
        return at, table[value].cast(pl.Float64, strict=False).to_numpy()

    yield _timed("lcl", *read("lcl_mac000002/MAC000002.csv", "DateTime", "KW", "%Y-%m-%d %H:%M:%S"), 1800)
    yield _timed("ausgrid", *read("ausgrid_customer12/data_2011-2012.csv", "", "GC", "%Y-%m-%d %H:%M:%S"), 1800)
    for kind in ("cdd-hdd", "cdd-only"):
        yield _timed(kind, *read(f"opendsm_samples/il-electricity-{kind}-hourly.csv.gz", "start", "value", "%Y-%m-%dT%H:%M:%S"), 3600)
    for number, seconds in ((0, 3600), (2, 1800)):
        file = f"opendsm_samples/uk-electricity-hdd-only-hourly-sample-{number}.csv.gz"
        yield _timed(f"uk-{number}", *read(file, "start", "value", "%Y-%m-%d %H:%M:%S"), seconds)
    table = pl.read_csv(data / "hue_residential1/Residential_1.csv", infer_schema_length=0)
    hours = (table["hour"].cast(pl.Int64).to_numpy() % 24) * np.timedelta64(3600, "s")
    day = table["date"].str.to_date("%m/%d/%Y").to_numpy().astype("datetime64[s]")
    yield _timed("hue", day + hours, table["energy_kWh"].cast(pl.Float64, strict=False).to_numpy(), 3600)
    table = pl.read_csv(data / "pge_d202_csv/D202.csv", infer_schema_length=0)
    at = (table["DATE"] + " " + table["START TIME"]).str.to_datetime("%m/%d/%Y %H:%M").to_numpy()
    quarters = _timed("pge", at, table["USAGE"].cast(pl.Float64).to_numpy(), 900)
    yield Meter("pge", quarters.first, quarters.loads.reshape(-1, 48, 2).sum(axis=2))


@dataclass(slots=True)
class Stream:
    """Inputs of the days of one fault, or of a home as it is."""

    home: str
    fault: str
    begin: int
    inputs: Array
    judged: Array  # days that had reads enough and a profile


def streams_of(meters: list[Meter]) -> list[Stream]:
    """Every home as it is and with faults; of the latter only the days of the fault."""
    rng, found = np.random.default_rng(SEED), []

    def inputs_of(meter: Meter) -> tuple[Array, Array]:
        (scored,) = Profiles(State(make_table), Forest.blank()).fold(block_of([meter]))
        return scored.inputs, scored.score[:, 0] >= 0

    for meter in meters:
        home = meter.name.removesuffix(" by hours")
        found.append(Stream(home, "", 0, *inputs_of(meter)))
        others = [other for other in meters if other.seconds == meter.seconds and other.name.removesuffix(" by hours") != home]
        for fault in FITTED:
            for _ in range(REPEATS):
                made = with_fault(meter, others, fault, rng)
                if made is not None:
                    faulty, begin, end = made
                    inputs, judged = inputs_of(Meter(faulty.name, faulty.first, faulty.loads[:end]))
                    found.append(Stream(home, fault, begin, inputs[begin:], judged[begin:]))
    return found


def weights_of(stream: Stream) -> Array:
    """How much each day counts: a fault as much as twenty days, its first days little, and a leak not before it is felt."""
    n = len(stream.inputs)
    if not stream.fault:
        return stream.judged.astype(float)
    weight = np.ones(n)
    if n > 10:
        weight[:2] = 0.3
    if stream.fault == "slow leak":
        weight[: n // 3] = 0
    weight *= stream.judged
    return 20.0 * weight / max(np.count_nonzero(weight), 1)


def learn(streams: list[Stream], faults: list[str]) -> Any:
    """A classifier of days as they are and days of these faults."""
    from lightgbm import Dataset, train

    used = [stream for stream in streams if not stream.fault or stream.fault in faults]
    weight = np.concatenate([weights_of(stream) for stream in used])
    truth = np.concatenate([np.full(len(stream.inputs), bool(stream.fault)) for stream in used])
    kept = weight > 0
    days = Dataset(np.concatenate([stream.inputs for stream in used])[kept], truth[kept], weight=weight[kept])
    return train(_PARAMETERS, days, TREES[faults[0] not in ACUTE])


def averaged(odds: Array, judged: Array) -> Array:
    """Odds of lasting changes as the kernel averages them."""
    mean, out = kernel.LEAST_ODDS / 2, np.full(len(odds), -np.inf)
    for k in np.flatnonzero(judged).tolist():
        mean += kernel.ODDS_RATE * (max(odds[k], kernel.LEAST_ODDS) - mean)
        out[k] = max(mean, odds[k] - kernel.SUDDEN)
    return out


def told(odds: Array, limit: float) -> int:
    """How often a home would be told of."""
    days = np.flatnonzero(odds >= limit)
    return int(len(days) > 0) + int((np.diff(days) > QUIET).sum())


def limit_of(streams: list[Stream], faults: list[str], budget: float, *, lasting: bool) -> float:
    """The lowest limit at which homes left out are told of within the budget."""
    homes = sorted({stream.home for stream in streams})
    fold_of = {home: number % FOLDS for number, home in enumerate(homes)}
    clean, days = [], 0
    for fold in range(FOLDS):
        model = learn([stream for stream in streams if fold_of[stream.home] != fold], faults)
        for stream in streams:
            if not stream.fault and fold_of[stream.home] == fold:
                odds = np.where(stream.judged, model.predict(stream.inputs, raw_score=True), -np.inf)
                clean.append(averaged(odds, stream.judged) if lasting else odds)
                days += len(odds)
    low, high = -3.0, 12.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (middle, high) if sum(told(odds, middle) for odds in clean) * 365 / days > budget else (low, middle)
    return high


def planted(models: list[Any], limits: list[float]) -> Forest:
    """The trees of both models as arrays."""
    nodes: list[tuple[int, float, int, int, float]] = []

    def plant(part: dict[str, Any]) -> int:
        number = len(nodes)
        nodes.append((-1, 0.0, 0, 0, float(part.get("leaf_value", part.get("internal_value", 0.0)))))
        if "split_feature" in part:
            left, right = plant(part["left_child"]), plant(part["right_child"])
            nodes[number] = (part["split_feature"], part["threshold"], left, right, float(part["internal_value"]))
        return number

    roots = [[plant(tree["tree_structure"]) for tree in model.dump_model()["tree_info"]] for model in models]
    feature, threshold, left, right, value = (np.array(column) for column in zip(*nodes, strict=True))
    return Forest(
        np.array(roots[0], np.int32), np.array(roots[1], np.int32), feature.astype(np.int32), threshold, left.astype(np.int32),
        right.astype(np.int32), value, np.array(limits),
    )  # fmt: skip


def main(data: Path) -> None:
    """Fits and writes."""
    fitted, _ = halves(meters_of(data))
    fitted += list(single_homes(data))
    fitted += [Meter(f"{m.name} by hours", m.first, m.loads.reshape(-1, 24, 2).sum(axis=2)) for m in fitted if m.seconds == 1800]
    streams = streams_of(fitted)
    kinds = [[fault for fault in FITTED if (fault in ACUTE) == acute] for acute in (True, False)]
    limits = [limit_of(streams, kinds[k], BUDGET[k], lasting=k == 1) for k in range(2)]
    trees = planted([learn(streams, kind) for kind in kinds], limits)
    np.savez_compressed(FILE, **{name: getattr(trees, name) for name in Forest.__slots__})
    print(f"{len(fitted)} homes, {len(streams)} streams, {len(trees.feature)} nodes, limits {limits}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "shared" / "data")
