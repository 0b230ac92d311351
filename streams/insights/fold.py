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
from streams.insights.profiles import NEVER, Profiles, Scored, bins_of, key_of, make_table, values_of
from streams.insights.segments import NAMES, Segments
from streams.runtime.fold import Message, Output, Result
from streams.runtime.state import State

Array = npt.NDArray[Any]
EXCEPTIONS: Final = "vee.exceptions"
RULE: Final = "anomaly"
_TOP: Final = 2.0  # a score that labels are to be weighed against is at most this
LOUDER: Final = 2.0  # times as strange as what was told last: told again, however soon
_LOOK: Final = 0.4  # scores from which labels may make an exception
_OF_SEGMENT: Final = {
    "base": kernel.BASE, "peak": kernel.PEAK, "same": kernel.SAME, "zero": kernel.ZERO, "negative": kernel.NEGATIVE,
    "night": kernel.NIGHT, "shape": kernel.SHAPE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """A strange day: row of what was scored, its score, the feature, whether the channel's segment was asked."""

    row: int
    score: float
    which: int
    segment: bool


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
        self._labels.learn(body["exception"], body["confirmed"])
        if not body["confirmed"]:
            key = key_of(body["device"], body["channel"])
            for name, table in sorted(self.state.tables.items()):
                if name != labels.TABLE and key in table.index:
                    row = table.index[key]
                    table["strange"][row] = kernel.PATIENCE
                    table.mark(np.array([row]))

    # --- days ---------------------------------------------------------------------------------------------------------------------

    def _days(self, scored: Scored, message: Message, result: Result) -> None:
        findings = [*self._own(scored), *self._by_segment(scored)]
        strange = set()
        for finding in sorted(findings, key=lambda found: found.row):
            looks = looks_of(scored.z[finding.row], finding.score, finding.which)
            if min(finding.score * self.settings.sensitivity, _TOP) * self._labels.factor(looks) >= 1.0:
                strange.add(finding.row)
                self._raise(scored, finding, looks, message, result)
        corrected = np.flatnonzero(~scored.fresh & (scored.table["raised"][scored.rows] == scored.block.day[:, None]).any(axis=1))
        for row in corrected.tolist():
            if row not in strange and scored.score[row] != kernel.TOO_FEW:
                self._take_back(scored, row, message, result)

    @staticmethod
    def _own(scored: Scored) -> list[Finding]:
        """Days that are strange by the channel's own profile."""
        rows = np.flatnonzero(scored.score >= _LOOK).tolist()
        return [Finding(row, float(scored.score[row]), int(scored.which[row]), False) for row in rows]

    def _by_segment(self, scored: Scored) -> list[Finding]:
        """Days of channels without history against their segment; some ordinary days teach it."""
        young = scored.fresh & (scored.score == kernel.YOUNG)
        mark = (scored.block.day.astype(np.int64) * 7919 + scored.rows * 104_729) % self.settings.sample
        sampled = scored.fresh & (mark == 0) & (scored.score >= 0) & (scored.score < 1)
        found = []
        for row in np.flatnonzero(young | sampled)[: self.settings.most].tolist():
            level = float(scored.before[row, 3])
            if level <= 0:
                continue
            block = scored.block
            segment = self._segments.get(block.unit[row].as_py(), int(block.seconds[row]), int(block.direction[row]), level)
            shape = scored.table["shape"][scored.rows[row]].view(np.float32)
            features = segment.features(scored.features[row], shape)
            score, which, _ = segment.score(features) if young[row] else (0.0, 0, 0.0)
            if score >= _LOOK:
                found.append(Finding(row, score, _OF_SEGMENT[NAMES[which]], True))
            if score < 1.0:
                segment.learn(features, shape)
        return found

    # --- exceptions -----------------------------------------------------------------------------------------------------------------

    def _raise(self, scored: Scored, finding: Finding, looks: Array, message: Message, result: Result) -> None:
        table, row, day = scored.table, scored.rows[finding.row], scored.day(finding.row)
        raised, told = table["raised"][row], int(table["told"][row])
        loudest = table["loudest"].view(np.float32)
        table["told"][row] = max(told, day)
        if day not in raised.tolist():
            quiet = told != NEVER and abs(day - told) <= self.settings.quiet_days
            if quiet and finding.score < LOUDER * loudest[row]:
                return  # the same trouble goes on, or has only just been told
            raised[...] = [day, *raised[:-1]]
            loudest[row] = finding.score
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
        row, block = finding.row, scored.block
        seconds, unit = int(block.seconds[row]), block.unit[row].as_py()
        values = values_of(block, row)
        weekend = int((scored.day(row) + 3) % 7 >= 5)
        kinds = scored.table["ages"][scored.rows[row]]
        location = scored.table["location"].view(np.float32)[scored.rows[row], weekend if kinds[weekend] else 1 - weekend]
        usual = location[np.minimum(np.arange(len(values)) * bins_of(seconds) * seconds // 86_400, len(location) - 1)]
        if finding.segment:
            part = kernel.FEATURES[finding.which]
            return f"The {_RESPECTS[part]} of this day is far from what comparable meters have; this meter has little history yet"
        at = int(scored.worst[row])
        text = words.reason(
            finding.which, scored.features[row], scored.before[row], values, at, seconds, unit, float(usual[at])
        )  # fmt: skip
        return text + words.shape(values, usual)


_RESPECTS: Final = {
    "base": "lowest consumption", "peak": "highest consumption", "same": "time of equal values", "zero": "time without consumption",
    "negative": "negative share", "night": "night share", "shape": "course",
}  # fmt: skip
