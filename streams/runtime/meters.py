"""What agents count: read off the outputs in the pure part, added to Prometheus only after the commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from schemas import metrics
from schemas.block import FinalBlock, ReadBlock
from schemas.rules import ACTIONS, METHODS, RULES, SEVERITIES
from streams.runtime.fold import Message, Output, Result

Tally = Counter[tuple[str, ...]]  # (counter, label values…)
_STATES: Final = ("open", "finalized", "exception")
_COUNTERS: Final[dict[str, Any]] = {
    "payloads": metrics.PAYLOADS,
    "payload-bytes": metrics.PAYLOAD_BYTES,
    "reads-in": metrics.READS_IN,
    "reads-out": metrics.READS_OUT,
    "exceptions": metrics.EXCEPTIONS,
    "estimated": metrics.ESTIMATED,
    "channel-days": metrics.CHANNEL_DAYS,
    "determinants": metrics.DETERMINANTS,
    "dead-letters": metrics.DEAD_LETTERS,
    "reads-rejected": metrics.READS_REJECTED,
    "commands": metrics.COMMANDS,
    "device-events": metrics.DEVICE_EVENTS,
    "postings": metrics.POSTINGS,
}
_SKEW: Final = "clock-skew"  # not added up: the last one counts
_PROOF: Final = "proof"  # as well


def tally(agent: str, message: Message, result: Result) -> Tally:
    """What one folded message adds to the counters."""
    counts: Tally = Counter()
    body, status = message.body, result.figures.get("status")
    if isinstance(body, ReadBlock | FinalBlock):
        counts["reads-in", agent] += len(body.values)
    if status:
        outcome = "partly" if status == "decoded" and result.figures.get("dead") else status
        counts["payloads", result.figures.get("format", ""), outcome] += 1
        counts["payload-bytes", result.figures.get("format", "")] += len(body or b"")
    if message.type == "DeviceEvent" and agent == "vee":
        counts["device-events", message.body["kind"]] += 1
    for output in result.outputs:
        if isinstance(output.body, dict):
            _tally_record(counts, agent, output)
        else:
            _tally_output(counts, agent, output)
    return counts


def _tally_output(counts: Tally, agent: str, output: Output) -> None:
    body = output.body
    if isinstance(body, ReadBlock | FinalBlock):
        counts["reads-out", agent] += len(body.values)
    if isinstance(body, ReadBlock) and body.received_at:
        name = (_SKEW, body.source)
        counts[name] = max(counts[name], _newest_end(body) - body.received_at)
    if isinstance(body, FinalBlock):
        for state, amount in enumerate(np.bincount(body.state[body.seconds > 0], minlength=3)[:3].tolist()):
            counts["channel-days", _STATES[state]] += amount
        for method, amount in enumerate(np.bincount(body.methods).tolist()):
            if method:
                counts["estimated", METHODS[method]] += amount
    elif output.topic.endswith(".dlq"):
        counts["dead-letters", output.topic] += 1


def _tally_record(counts: Tally, agent: str, output: Output) -> None:
    body = output.body
    if output.type == "VeeException" and body["status"] == "open":
        counts["exceptions", body["rule"], body["severity"]] += 1
        if body["severity"] == "terminate":
            counts["reads-rejected", agent, body["rule"]] += body["count"]
    elif output.type == "Determinant":
        counts["determinants", body["kind"], body["status"]] += 1
    elif output.type == "AuditEvent" and body["command"]:
        counts["commands", body["action"], body["outcome"]] += 1
    elif output.type == "Posting":
        counts["postings", body["kind"]] += 1
    elif output.type == "PrepaidProof":
        counts[_PROOF, str(body["partition"])] = int(body["holds"])


def _newest_end(block: ReadBlock) -> int:
    """The end of the newest interval, or the time of the newest register read (UTC seconds)."""
    ends = block.start + block.seconds * block.count.astype(np.int64)
    return int(max(ends.max(initial=0), block.times.max(initial=0)))


def show_all() -> None:
    """Lets every rule, method and action have its series from the start, at zero: what never happened is told as such."""
    for rule in RULES:
        for severity in SEVERITIES:
            metrics.EXCEPTIONS.labels(rule, severity)
    for method in METHODS[1:]:
        metrics.ESTIMATED.labels(method)
    for action in ACTIONS:
        for outcome in ("applied", "refused", "preview"):
            metrics.COMMANDS.labels(action, outcome)


def publish(tallies: Iterable[Tally]) -> None:
    """Adds tallies to the process's metrics."""
    for counts in tallies:
        for (name, *labels), amount in counts.items():
            if name == _SKEW:
                metrics.CLOCK_SKEW.labels(metrics.source_label(labels[0])).set(amount)
            elif name == _PROOF:
                metrics.PROOF_HOLDS.labels(*labels).set(amount)
            elif amount:
                _COUNTERS[name].labels(*labels).inc(amount)
