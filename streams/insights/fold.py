"""The insights agent: learns from final measurements what is usual for each channel and segment, and tells what is not.

Inbox ``reads.final``: final blocks and labels; ticks and the rest are not its business. Writes ``vee.exceptions`` of rule ``anomaly``, at
most one per channel-day. It holds nothing up: nobody waits for it but the receipts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.block import FinalBlock
from schemas.identity import identity
from schemas.topology.insights import InsightsSettings
from streams import calendar
from streams.insights import kernel, labels, words
from streams.insights.labels import Labels, looks_of
from streams.insights.profiles import NEVER, Profiles, Scored, key_of, make_table, values_of
from streams.insights.segments import NAMES, Segments, shape_of
from streams.runtime.fold import Message, Output, Result
from streams.runtime.state import State

Array = npt.NDArray[Any]
EXCEPTIONS: Final = "vee.exceptions"
RULE: Final = "anomaly"
_LOOK: Final = 0.4  # scores from which labels may make an exception
_OF_SEGMENT: Final = {
    "base": "lowest consumption", "peak": "highest consumption", "same": "time of equal values", "zero": "time without consumption",
    "negative": "negative share", "night": "night share", "shape": "course",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """A strange day: row of what was scored, its score, acute or lasting, how much each family of features adds to its odds; or by which
    feature of its segment it is strange."""

    row: int
    score: float
    which: int
    parts: Array
    segment: str = ""


class InsightsFold:
    """Folds FinalBlock and Label messages of one partition."""

    def __init__(self, settings: InsightsSettings, partition: int) -> None:
        self.settings, self.partition = settings, partition
        self.state = State(lambda name: labels.make_table() if name == labels.TABLE else make_table(name))
        self._profiles = Profiles(self.state)
        self._segments = Segments(self.state)
        self._labels = Labels(self.state)

    def apply(self, message: Message) -> Result:
        """Folds one message in."""
        result = Result()
        if isinstance(message.body, FinalBlock):
            for scored in self._profiles.fold(message.body):
                self._days(scored, message, result)
            self._segments.save()
        elif message.type == "Label":
            self._label(message.body)
        return result

    # --- labels -------------------------------------------------------------------------------------------------------------------

    def _label(self, body: dict[str, Any]) -> None:
        """Learns from a clerk's decision. What was unusual but right is the channel's new normal: its next days teach."""
        learned = self._labels.learn(body["exception"], body["confirmed"])
        key = key_of(body["device"], body["channel"])
        for name, table in sorted(self.state.tables.items()):
            if name != labels.TABLE and key in table.index:
                row = table.index[key]
                table["labels"][row, int(body["confirmed"])] += learned
                if not body["confirmed"]:
                    table["strange"][row] = kernel.ACUTE_PATIENCE
                table.mark(np.array([row]))

    # --- days ---------------------------------------------------------------------------------------------------------------------

    def _days(self, scored: Scored, message: Message, result: Result) -> None:
        findings = [*self._own(scored), *self._by_segment(scored)]
        strange: dict[int, list[tuple[float, Finding, Array]]] = {}
        for finding in findings:
            labelled = scored.table["labels"][scored.rows[finding.row]]
            looks = looks_of(finding.parts, (finding.score - 1.0) * kernel.SOFT, finding.which, labelled)
            score = (1.0 + self._labels.beyond(looks) / kernel.SOFT) * self.settings.sensitivity
            if score >= 1.0:
                strange.setdefault(finding.row, []).append((score, finding, looks))
        for row in sorted(strange):
            told = [self._is_news(scored, finding) for _, finding, _ in strange[row]]
            news = [found for found, new in zip(strange[row], told, strict=True) if new]
            if news:
                _, finding, looks = max(news, key=lambda found: found[0])
                self._raise(scored, finding, looks, message, result)
        corrected = np.flatnonzero(~scored.fresh & (scored.table["raised"][scored.rows] == scored.block.day[:, None]).any(axis=1))
        for row in corrected.tolist():
            if row not in strange and scored.score[row, 0] != kernel.TOO_FEW:
                self._take_back(scored, row, message, result)

    def _own(self, scored: Scored) -> list[Finding]:
        """Days that are strange by the channel's own profile."""
        trees, least = self._profiles.trees, _LOOK if self._labels.any else 1.0 / self.settings.sensitivity
        return [
            Finding(row, float(scored.score[row, which]), which, words.by_family(trees.parts(scored.inputs[row], which)))
            for row, which in zip(*(part.tolist() for part in np.nonzero(scored.score >= least)), strict=True)
        ]

    def _by_segment(self, scored: Scored) -> list[Finding]:
        """Days of channels without history against their segment; some ordinary days teach it."""
        score = scored.score.max(axis=1)
        young = scored.fresh & (score == kernel.YOUNG)
        mark = (scored.block.day.astype(np.int64) * 7919 + scored.rows * 104_729) % self.settings.sample
        sampled = scored.fresh & (mark == 0) & (score >= 0) & (score < 1)
        found = []
        for row in np.flatnonzero(young | sampled)[: self.settings.most].tolist():
            block, level = scored.block, float(scored.level[row])
            segment = self._segments.get(block.unit[row].as_py(), int(block.seconds[row]), int(block.direction[row]), level)
            shape = shape_of(values_of(block, row))
            features = segment.features(scored.features[row], shape)
            off, which, _ = segment.score(features) if young[row] else (0.0, 0, 0.0)
            if off >= _LOOK:
                found.append(Finding(row, off, kernel.ACUTE, np.zeros(len(words.NAMES)), NAMES[which]))
            if off < 1.0:
                segment.learn(features, shape)
        return found

    # --- exceptions -----------------------------------------------------------------------------------------------------------------

    def _is_news(self, scored: Scored, finding: Finding) -> bool:
        """Whether a strange day is told: not where the same kind of trouble goes on, or has only just been told."""
        table, row, day = scored.table, scored.rows[finding.row], scored.day(finding.row)
        told = int(table["told"][row, finding.which])
        table["told"][row, finding.which] = max(told, day)
        return told == NEVER or abs(day - told) > self.settings.quiet_days or day in table["raised"][row].tolist()

    def _raise(self, scored: Scored, finding: Finding, looks: Array, message: Message, result: Result) -> None:
        raised, day = scored.table["raised"][scored.rows[finding.row]], scored.day(finding.row)
        if day not in raised.tolist():
            raised[...] = [day, *raised[:-1]]
        exception = self._write(scored, finding.row, self._detail(scored, finding), "open", message, result)
        self._labels.keep(exception, looks)

    def _take_back(self, scored: Scored, row: int, message: Message, result: Result) -> None:
        raised = scored.table["raised"][scored.rows[row]]
        kept = [day for day in raised.tolist() if day != scored.day(row)]
        raised[...] = [*kept, *[NEVER] * (len(raised) - len(kept))]
        self._write(scored, row, "no longer found", "superseded", message, result)

    def _write(self, scored: Scored, row: int, detail: str, status: str, message: Message, result: Result) -> str:
        block = scored.block
        device, channel = block.device[row].as_py(), block.channel[row].as_py()
        start = int(block.start[row])
        end = int(calendar.start_of(block.zone[row].as_py(), scored.day(row) + 1))
        name = identity(RULE, device, channel, start)
        body = {
            "id": name, "rule": RULE, "severity": self.settings.severity, "status": status, "version": int(block.version[row]),
            "device": device, "channel": channel, "service_point": block.service_point[row].as_py(), "payload": message.payload,
            "start": datetime.fromtimestamp(start, UTC), "end": datetime.fromtimestamp(end, UTC), "count": 1 if status == "open" else 0,
            "detail": detail,
        }  # fmt: skip
        result.count("exceptions")
        result.outputs.append(Output(EXCEPTIONS, "VeeException", body, device.encode()))
        return name

    def _detail(self, scored: Scored, finding: Finding) -> str:
        if finding.segment:
            part = _OF_SEGMENT[finding.segment]
            return f"The {part} of this day is far from what comparable meters have; this meter has little history yet"
        row, block, state_row = finding.row, scored.block, scored.rows[finding.row]
        seconds, values = int(block.seconds[row]), values_of(block, row)
        weekend = int((scored.day(row) + 3) % 7 >= 5)
        kind = weekend if scored.table["ages"][state_row][weekend] else 1 - weekend
        location = scored.table["location"].view(np.float32)[state_row, kind]
        usual = location[np.minimum(np.arange(len(values)) * seconds // 3600, kernel.HOURS - 1)]
        seen = words.Seen(
            scored.features[row], scored.before[row], float(scored.level[row]), values, int(scored.worst[row]), usual,
            scored.table["fits"].view(np.float32)[state_row, 0], seconds, block.unit[row].as_py(), finding.which == kernel.LASTING,
        )  # fmt: skip
        text = words.reason(words.family_of(finding.parts, seen.x, seen.before, lasting=seen.lasting), seen)
        return text if seen.lasting else text + words.shape(values, usual)
