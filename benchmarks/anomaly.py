"""Anomalies: the insights agent on real loads with injected faults and on the NAB series, beside river's detectors on the same streams.

Every score is causal: a day (an interval) is scored before it is learned from. Loads come from ``../shared/data`` or ``MDH_SHARED_DATA``.
The forests of the agent and their limits were fitted to every second home and to single homes of other sources
(``benchmarks.insights_fit``), never to the others (``held_out``).

A fault counts as found where an exception is raised anew between its first day and the second day after its last; one that was raised
before and goes on is no hit. Faults begin on a day that was read, after at least 29 that were: there is nothing else to judge by.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.csv as pc

from benchmarks import nab
from schemas import conditions
from schemas.block import FINALIZED, FinalBlock, strings
from schemas.identity import identity
from schemas.topology.insights import InsightsSettings
from streams.insights import kernel, words
from streams.insights.fold import InsightsFold
from streams.insights.labels import looks_of
from streams.insights.profiles import Scored
from streams.runtime.fold import Message, Result

Array = npt.NDArray[Any]
Say = Callable[[str], None]
DAY = 86_400
FAULTS = {"spike": 1, "flat": 3, "step tamper": 30, "reverse": 3, "shift": 30, "swapped meter": 30, "slow leak": 45}  # days
FITTED = FAULTS | {"multiplied": 2}  # what the forests are fitted to
ACUTE = ("spike", "flat", "reverse", "multiplied")  # seen in a single day; the others are lasting changes
BEFORE = 60  # days of history before a fault, at least
WEEK = 7
UNJUDGED = -20.0  # odds of a day that could not be judged


@dataclass(frozen=True, slots=True)
class Meter:
    """Real loads: a row per day, NaN where there is no read."""

    name: str
    first: int  # day number
    loads: Array

    @property
    def seconds(self) -> int:
        """The interval length."""
        return DAY // self.loads.shape[1]


def meters_of(data: Path) -> list[Meter]:
    """General supply of the Smart Grid Smart City homes and the loads of the CityLearn homes."""
    found = []
    table = pc.read_csv(data / "sgsc_half_hourly" / "sgsc_interval_readings.csv.gz")
    who, load = table["CUSTOMER_ID"].to_numpy(), table["GENERAL_SUPPLY_KWH"].to_numpy()
    at = table["READING_DATETIME"].to_numpy().astype("datetime64[s]").astype(np.int64)
    for customer in np.unique(who).tolist():
        mine = who == customer
        first, days = int(at[mine].min() // DAY), at[mine] // DAY
        loads = np.full((int(days.max()) - first + 1, 48), np.nan)
        loads[days - first, at[mine] % DAY // 1800] = load[mine]
        if np.nansum(loads) > 100 and len(loads) > 2 * BEFORE:
            found.append(Meter(f"sgsc-{customer}", first, loads))
    for path in sorted((data / "citylearn_2022").glob("Building_*.csv")):
        load = pc.read_csv(path)["non_shiftable_load"].to_numpy()
        found.append(Meter(path.stem, 17_014, load[: len(load) // 24 * 24].reshape(-1, 24)))
    return found


def halves(meters: list[Meter]) -> tuple[list[Meter], list[Meter]]:
    """The homes that forests are fitted to, and those held out."""
    return meters[::2], meters[1::2]


def with_fault(meter: Meter, others: list[Meter], fault: str, rng: np.random.Generator) -> tuple[Meter, int, int] | None:
    """The meter with a fault, and the days from which to before which it lasts; None where there are too few reads."""
    days = FITTED[fault]
    begin = int(rng.integers(BEFORE, len(meter.loads) - days))
    loads, part = meter.loads.copy(), slice(begin, begin + days)
    measured = np.isfinite(loads[: begin + 1]).mean(axis=1) >= kernel.ENOUGH
    if np.isnan(loads[part]).mean() > 0.3 or not measured[begin] or measured[:begin].sum() <= kernel.WARM_UP:
        return None
    hour = loads.shape[1] / 24
    if fault == "spike":
        loads[begin, rng.integers(loads.shape[1])] = np.nanmax(loads[max(0, begin - 90) : begin]) * rng.uniform(3, 20)
    elif fault == "flat":
        loads[part] = np.nan_to_num(loads[begin, rng.integers(loads.shape[1])])
    elif fault == "step tamper":
        loads[part] *= rng.uniform(0.3, 0.5)
    elif fault == "multiplied":
        loads[part] *= rng.uniform(4, 12)
    elif fault == "reverse":
        loads[part] *= -1
    elif fault == "shift":
        moved = int(rng.integers(4, 13) * hour) * int(rng.choice([-1, 1]))
        loads[part] = np.roll(loads[part].ravel(), moved).reshape(loads[part].shape)
    elif fault == "swapped meter":
        other = others[int(rng.integers(len(others)))].loads
        other = other[len(other) // 3 :][:days]
        loads[begin : begin + len(other)] = other
        days = len(other)
    else:
        usual = np.nanmean(loads[begin - BEFORE : begin])
        loads[part] += np.linspace(0, rng.uniform(0.5, 1.0) * usual, loads[part].size).reshape(loads[part].shape)
    return Meter(f"{meter.name} {fault} {begin}", meter.first, loads), begin, begin + days


def block_of(meters: list[Meter], days: slice = slice(None)) -> FinalBlock:
    """Days of meters (of one interval length) as VEE would publish them."""
    parts = [meter.loads[days] for meter in meters]
    loads = np.concatenate(parts)
    rows, slots = loads.shape
    device = np.repeat([meter.name for meter in meters], [len(part) for part in parts])
    day = np.concatenate([meter.first + np.arange(len(meter.loads))[days] for meter in meters])
    counts, nothing, zeros = np.full(rows, slots, np.int32), np.zeros(0, np.int64), np.zeros(rows, np.int32)
    return FinalBlock(
        id=identity(meters[0].name, int(day[0])), payload="p", source="bench", device=strings(device.tolist()),
        channel=strings(["1.8.0"] * rows), unit=strings(["kWh"] * rows), service_point=strings([""] * rows), account=strings([""] * rows),
        zone=strings(["UTC"] * rows), direction=np.ones(rows, np.int8), day=day.astype(np.int32), start=day * DAY,
        seconds=np.full(rows, DAY // slots, np.int32), count=counts, reads=zeros, version=np.ones(rows, np.int64),
        replaces=np.zeros(rows, np.int64), state=np.full(rows, FINALIZED, np.int8), dials=zeros.astype(np.int8),
        multiplier=np.full(rows, 1_000_000), values=np.round(np.nan_to_num(loads).ravel() * 1e6).astype(np.int64),
        conditions=np.where(np.isnan(loads.ravel()), conditions.MISSING, conditions.REGULAR).astype(np.int32),
        methods=np.zeros(loads.size, np.int8), times=nothing, received_count=zeros, received=nothing,
        received_conditions=nothing.astype(np.int32), before_count=zeros, before=nothing, before_conditions=nothing.astype(np.int32),
    )  # fmt: skip


# --- the agent on faults --------------------------------------------------------------------------------------------------------


class Judge(InsightsFold):
    """The agent, and beside what it tells the odds it gives each day: the higher of both beyond their limits, as labels leave them."""

    def __init__(self) -> None:
        super().__init__(InsightsSettings(), 0)
        self.odds: list[float] = []

    def _days(self, scored: Scored, message: Message, result: Result) -> None:
        beyond = scored.odds - self._profiles.trees.limits
        for row in range(len(beyond)):
            judged = scored.score[row, 0] >= 0
            self.odds.append(max(self._heard(scored, row, which, float(beyond[row, which])) for which in range(2)) if judged else UNJUDGED)
        super()._days(scored, message, result)

    def _heard(self, scored: Scored, row: int, which: int, beyond: float) -> float:
        if not self._labels.any:
            return beyond
        parts = words.by_family(self._profiles.trees.parts(scored.inputs[row], which))
        return self._labels.beyond(looks_of(parts, beyond, which, scored.table["labels"][scored.rows[row]]))


def told_of(fold: InsightsFold, meter: Meter, fault: tuple[int, int] | None = None, *, decided: bool = False) -> list[int]:
    """Days (from the meter's first) the agent tells of. Where they are ``decided``, the days come week by week and a clerk says of each
    exception before the next week whether it is of the fault (its first day, the day behind its last)."""
    begin, end = fault or (0, -2)
    told: list[int] = []
    weeks = [slice(day, day + WEEK) for day in range(0, len(meter.loads), WEEK)] if decided else [slice(None)]
    for number, days in enumerate(weeks):
        result = fold.apply(Message("FinalBlock", block_of([meter], days), f"{meter.name} {number}"))
        for body in [output.body for output in result.outputs]:
            day = int(body["start"].timestamp()) // DAY
            told.append(day - meter.first)
            if decided:
                verdict = begin <= told[-1] < end + 2
                label = {"exception": body["id"], "device": meter.name, "channel": "1.8.0", "day": day, "confirmed": verdict}
                fold.apply(Message("Label", label, f"{body['id']} label"))
    return told


@dataclass(slots=True)
class Trial:
    """What came of it."""

    found: dict[str, list[int]]  # days from the beginning of each fault to its exception, -1: missed
    alarms: int = 0
    years: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Recall per fault and over all, false alarms per meter-year."""
        every = np.array([delay for delays in self.found.values() for delay in delays])
        return {
            "recall": round(float((every >= 0).mean()), 3),
            "recall_within_14_days": round(float(((every >= 0) & (every < 14)).mean()), 3),
            "false_alarms_per_meter_year": round(self.alarms / self.years, 2),
            "recall_by_fault": {fault: round(float((np.array(delays) >= 0).mean()), 3) for fault, delays in self.found.items()},
            "median_days_by_fault": {
                fault: float(np.median([delay for delay in delays if delay >= 0])) if max(delays) >= 0 else None
                for fault, delays in self.found.items()
            },
            "faults": len(every),
            "meter_years": round(self.years, 1),
        }

    def __add__(self, other: Trial) -> Trial:
        """Both together."""
        found = {fault: [*self.found[fault], *other.found[fault]] for fault in self.found}
        return Trial(found, self.alarms + other.alarms, self.years + other.years)


def trial(
    fold: InsightsFold, meters: list[Meter], repeats: int, seed: int, *, decided: bool = False, pool: list[Meter] | None = None
) -> Trial:
    """Faults into each meter in turn, every one on a fresh copy of it; false alarms are those of the meters as they are. Other meters are
    swapped in from ``pool``, by default the same meters. ``decided``: clerks decide every exception within a week (:func:`told_of`)."""
    rng, out = np.random.default_rng(seed), Trial({fault: [] for fault in FAULTS})
    for meter in meters:
        out.alarms += len(told_of(fold, Meter(f"{meter.name} as it is", meter.first, meter.loads), decided=decided))
        out.years += len(meter.loads) / 365
        others = [other for other in pool or meters if other.seconds == meter.seconds and other.name != meter.name]
        for fault in FAULTS:
            for number in range(repeats):
                made = with_fault(meter, others, fault, rng)
                if made is None:
                    continue
                faulty, begin, end = made
                told = told_of(fold, Meter(f"{faulty.name} {number}", faulty.first, faulty.loads), (begin, end), decided=decided)
                hits = [day for day in told if begin <= day < end + 2]
                out.found[fault].append(min(hits) - begin if hits else -1)
    return out


# --- peers on the same days ---------------------------------------------------------------------------------------------------


def roc_auc(scores: Array, truth: Array) -> float:
    """Area under the ROC curve, ties counted half."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    ranks = np.empty(len(scores))
    edges = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1], True])
    for a, b in pairwise(edges):
        ranks[order[a:b]] = (a + b + 1) / 2
    positive = int(truth.sum())
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


def pr_auc(scores: Array, truth: Array) -> float:
    """Average precision."""
    order = np.argsort(-scores, kind="stable")
    hits = truth[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def peers(slots: int) -> dict[str, Callable[[], Callable[[int, float], float]]]:
    """river's detectors as functions of slot and value that score and then learn."""
    from river import anomaly, preprocessing, time_series

    def half_space() -> Callable[[int, float], float]:
        scaler, model = preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=42)

        def step(slot: int, value: float) -> float:
            x = {"value": value, "slot": float(slot)}
            scaler.learn_one(x)
            scaled = scaler.transform_one(x)
            score: float = model.score_one(scaled)
            model.learn_one(scaled)
            return score

        return step

    def gaussian() -> Callable[[int, float], float]:
        model = anomaly.GaussianScorer(window_size=slots * 30)

        def step(_: int, value: float) -> float:
            score: float = model.score_one(None, value)
            model.learn_one(None, value)
            return score

        return step

    def snarimax() -> Callable[[int, float], float]:
        model, seen = time_series.SNARIMAX(p=2, d=0, q=1, m=slots, sp=1), 0

        def step(_: int, value: float) -> float:
            nonlocal seen
            residual = abs(value - model.forecast(1)[0]) if seen > slots else 0.0
            model.learn_one(value)
            seen += 1
            return residual if math.isfinite(residual) else 1e9

        return step

    return {"HalfSpaceTrees": half_space, "GaussianScorer": gaussian, "SNARIMAX": snarimax}


def compare(meters: list[Meter], taught: Judge, say: Say, days: int = 120) -> dict[str, Any]:
    """ROC-AUC and PR-AUC over meter-days, and reads per second, of the agent and of each peer on the same stream. ``taught`` has heard
    labels of other homes, and hears those of these as they stream."""
    rng = np.random.default_rng(5)
    streams: list[tuple[Meter, Array, tuple[int, int]]] = []
    for meter in meters:
        others = [other for other in meters if other is not meter and other.seconds == meter.seconds]
        for fault in FAULTS:
            made = with_fault(meter, others, fault, rng)
            if made and not np.isnan(made[0].loads).all():
                faulty, begin, end = made
                part = slice(max(0, begin - (days - 30)), begin + 30)
                truth = np.zeros(len(faulty.loads), bool)
                truth[begin:end] = True
                stream = Meter(faulty.name, faulty.first + part.start, np.nan_to_num(faulty.loads[part]))
                streams.append((stream, truth[part], (begin - part.start, end - part.start)))
    truth = np.concatenate([truth for _, truth, _ in streams])
    figures: dict[str, Any] = {"meter_days": len(truth)}
    rate = round(own_rate(meters))
    for name, judge, decided in (("insights", Judge(), False), ("insights_with_labels", taught, True)):
        heard, judge.odds = judge._labels.labels, []
        for meter, _, fault in streams:
            told_of(judge, meter, fault, decided=decided)
        odds = np.array(judge.odds)
        figures[name] = {"roc_auc": round(roc_auc(odds, truth), 3), "pr_auc": round(pr_auc(odds, truth), 3), "reads_per_s": rate}
        if decided:
            figures[name] |= {"labels_before": heard, "labels": judge._labels.labels}
    for name in peers(48):
        say(f"{name} …")
        began, days_, reads = time.process_time(), [], 0
        for meter, _, _ in streams:
            step = peers(meter.loads.shape[1])[name]()
            for row in meter.loads.tolist():
                got = [step(slot, value) for slot, value in enumerate(row)]
                days_.append((max(got), sum(got) / len(got)))
            reads += meter.loads.size
        peer_rate = reads / (time.process_time() - began)
        areas = [(roc_auc(scores, truth), pr_auc(scores, truth)) for scores in np.array(days_).T]  # a day's highest score, or their mean
        roc, precision = max(areas)
        figures[name] = {
            "roc_auc": round(roc, 3), "pr_auc": round(precision, 3), "reads_per_s": round(peer_rate),
            "insights_faster_by": round(rate / peer_rate, 1),
        }  # fmt: skip
    return figures


def own_rate(meters: list[Meter]) -> float:
    """Reads a second of the whole agent (segments, words and all) over blocks of 500 channels and one day."""
    half_hourly = [meter for meter in meters if meter.loads.shape[1] == 48]
    crowd = [Meter(f"{n}", 20_000, np.nan_to_num(half_hourly[n % len(half_hourly)].loads[:60])) for n in range(500)]
    fold, blocks = InsightsFold(InsightsSettings(), 0), [block_of(crowd, slice(day, day + 1)) for day in range(60)]
    spent = reads = 0.0
    for day, block in enumerate(blocks):
        began = time.process_time()
        fold.apply(Message("FinalBlock", block, f"day {day}"))
        if day >= kernel.WARM_UP:
            spent += time.process_time() - began
            reads += len(block.values)
        fold.state.take_changed()
    return reads / spent


# --- NAB ------------------------------------------------------------------------------------------------------------------------


def series_of(data: Path) -> Iterator[nab.Series]:
    """All NAB series with their labelled windows."""
    windows = json.loads((data / "nab" / "labels" / "combined_windows.json").read_text())
    for path in sorted((data / "nab" / "data").glob("*/*.csv")):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        at = np.array([int(datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp()) for row in rows])
        name = f"{path.parent.name}/{path.name}"
        spans = [[int(datetime.fromisoformat(t).replace(tzinfo=UTC).timestamp()) for t in pair] for pair in windows.get(name, [])]
        found = [(int(np.searchsorted(at, a)), int(np.searchsorted(at, b, "right"))) for a, b in spans]
        yield nab.Series(name, at, np.array([float(row["value"]) for row in rows]), found)


def run(data: Path, say: Say, repeats: int = 2) -> dict[str, Any]:
    """Everything; the figures of the last line."""
    meters = meters_of(data)
    fitted, held = halves(meters)
    figures: dict[str, Any] = {"meters": len(meters)}
    for name, group in (("fitted", fitted), ("held_out", held)):
        say(f"faults into {len(group)} meters ({name}) …")
        figures[name] = trial(InsightsFold(InsightsSettings(), 0), group, repeats, 1).figures()
    say("with labels …")
    compared = held[:: max(1, len(held) // 6)]
    labelled = [meter for meter in held if meter not in compared]
    taught = Judge()
    trial(taught, labelled, 1, 7, decided=True, pool=held)
    before = deepcopy(taught)
    figures["compared"] = trial(Judge(), compared, 2 * repeats, 3, pool=held).figures()
    figures["compared_with_labels"] = trial(taught, compared, 2 * repeats, 3, decided=True, pool=held).figures()
    say("beside river's detectors …")
    figures["meter_day_streams"] = compare(compared, before, say)
    say("NAB …")
    figures["nab"] = nab.evaluate(list(series_of(data)), peers(288), roc_auc, pr_auc)
    return figures
