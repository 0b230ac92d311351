"""``mdh bench todos``: the queue with a long history against the same queue without one, and a storm of exceptions.

Both stores hold the same live To-Dos; one has millions of completed ones, their history, and a day of a million meters beside. Asked are,
through the service, the queue, its groups and figures, and one To-Do. The storm goes through the agent's fold alone. Times are processor
times of the whole process, engine included, because other work on the machine must not count.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from connectors.clickhouse import migrate
from connectors.clickhouse.store import Store, open_store
from connectors.head_end.reading import StoreReader
from connectors.todo.part import tidy
from connectors.todo.questions import Questions, Selection
from schemas.topology import load_topology
from schemas.topology.todo import TodoSettings
from streams.runtime.fold import Message
from streams.todo.fold import TodoFold

LIVE: Final = 20_000
ROUNDS: Final = 9
AT_ONCE: Final = 1_000_000
Say = Callable[[str], None]
_START: Final = 1_772_409_600

_COLUMNS: Final = (
    "id, version, type, state, priority, role, user, subject, device, channel, rule, severity, count, open, grouped, first_seen, last_seen,"
    " start, end, assign_by, resolve_by, level, detail, completed_at, exceptions"
)
_SEEN: Final = "toDateTime({start} + number % 600000, 'UTC')"
_ROWS: Final = (
    "concat('{mark}', hex(cityHash64(number))), 3, ['validation', 'unusable-reads', 'silent-meter'][number % 3 + 1], '{state}', "
    "4 + number % 5, ['clerk', 'supervisor', 'operations'][number % 3 + 1], '{user}', concat('M', toString(number), '/E1'), "
    "concat('M', toString(number)), 'E1', ['interval-spike', 'negative-consumption', 'missing-quantity'][number % 3 + 1], 'issue', 1, "
    "{open}, false, " + _SEEN + ", " + _SEEN + ", toDateTime({start}, 'UTC'), toDateTime({start} + 3600, 'UTC'), "
    "toDateTime({start} + 700000, 'UTC'), toDateTime({start} + 900000, 'UTC'), 0, 'a value far above the rest', {completed}, [hex(number)]"
)


def run(completed: int, meters: int, exceptions: int, say: Say) -> dict[str, Any]:
    """All figures; sizes are numbers of To-Dos, of meters and of exceptions."""
    folder = Path(tempfile.mkdtemp(prefix="mdh-bench-todos-"))
    try:
        say("the empty system")
        before = _measured(folder / "empty", 0, 0, say)
        say("the full one")
        full = _measured(folder / "full", completed, meters, say)
        say("the empty one again")
        again = _measured(folder / "empty", 0, 0, say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    empty = {name: (before[name] + again[name]) / 2 for name in before}
    ratios = {name: round(full[name] / empty[name], 2) for name in full}
    say("a storm of exceptions")
    return {
        "bench": "todos", "completed": completed, "live": LIVE, "meters": meters,
        "empty_ms": {name: round(value * 1000, 1) for name, value in empty.items()},
        "full_ms": {name: round(value * 1000, 1) for name, value in full.items()}, "ratios": ratios, "ratio": max(ratios.values()),
        **storm(exceptions),
    }  # fmt: skip


def _measured(folder: Path, completed: int, meters: int, say: Say) -> dict[str, float]:
    """Median processor seconds of every question over a store, which is filled where it is new."""
    new = not folder.exists()
    store = open_store(f"chdb://{folder}")
    try:
        if new:
            migrate.up(store)
            _fill(store, completed, meters, say)
            tidy(store)
        return _asked(store)
    finally:
        store.close()


def _fill(store: Store, completed: int, meters: int, say: Say) -> None:
    live = _ROWS.format(mark="l", state="open", user="", open=1, completed="NULL", start=_START)
    for table, more, value in (("todo_items", "", ""), ("todo_open", ", done", ", 0")):
        store.command(f"INSERT INTO {table} ({_COLUMNS}{more}) SELECT {live}{value} FROM numbers({LIVE})")
    done = _ROWS.format(
        mark="c", state="completed", user="ann", open=0, completed=f"toDateTime({_START} + 3600, 'UTC')", start=_START - 30_000_000
    )
    for first in range(0, completed, AT_ONCE):
        source = f"FROM numbers({first}, {min(AT_ONCE, completed - first)})"
        store.command(f"INSERT INTO todo_items ({_COLUMNS}) SELECT {done} {source}")
        store.command(f"INSERT INTO todo_open ({_COLUMNS}, done) SELECT {done}, 1 {source}")
        store.command(
            "INSERT INTO todo_event_log (id, todo, version, at, action, user, command, before, after, text) SELECT hex(number), "
            f"concat('c', hex(cityHash64(number))), 3, toDateTime({_START} - 20000000, 'UTC'), 'completed', 'ann', hex(number), "
            f"'', '', '' {source}"
        )
        say(f"{min(first + AT_ONCE, completed):,} completed")
    if meters:
        day = f"toDateTime({_START}, 'UTC')"
        store.command(
            "INSERT INTO final_days (device, channel, unit, zone, day, day_start, seconds, step, version, state, multiplier, values, "
            f"conditions) SELECT concat('M', toString(number)), 'E1', 'kWh', 'UTC', toDate({day}), {day}, 3600, 1, 1, 1, 1000000, "
            f"arrayMap(i -> toInt64(i * number % 1000), range(24)), arrayMap(i -> 500000, range(24)) FROM numbers({meters})"
        )


def _asked(store: Store) -> dict[str, float]:
    questions = Questions(TodoSettings(), StoreReader(store, 1))
    page = questions.page(Selection(), "priority", None, 100)
    one = page["items"][0]["id"]
    asks: Mapping[str, Callable[[], Any]] = {
        "queue": lambda: questions.page(Selection(), "priority", None, 100),
        "queue_filtered": lambda: questions.page(Selection(role=["clerk"], rule=["interval-spike"]), "oldest", None, 100),
        "next_page": lambda: questions.page(Selection(), "priority", page["next"], 100),
        "groups": lambda: questions.groups(Selection(), "rule"),
        "stats": questions.stats,
        "todo": lambda: questions.detail(one),
    }
    found = {}
    for name, ask in asks.items():
        ask()
        times = []
        for _ in range(ROUNDS):
            began = time.process_time()
            ask()
            times.append(time.process_time() - began)
        found[name] = statistics.median(times)
    return found


def storm(exceptions: int) -> dict[str, Any]:
    """So many exceptions of one payload through the fold: To-Dos, records, processor time and memory."""
    fold = TodoFold(load_topology(None).todo)
    fold.apply(Message("Tick", {"at": _START, "close": False}, "tick/0"))
    at = datetime.fromtimestamp(_START, UTC)
    body = {
        "rule": "interval-spike", "severity": "issue", "status": "open", "version": 1, "channel": "E1", "service_point": "",
        "payload": "p1", "start": at, "end": at, "count": 1, "detail": "a value far above the rest",
    }  # fmt: skip
    records, warm = 0, min(10_000, exceptions // 2)
    size, began = 0, 0.0
    for number in range(exceptions):
        if number == warm:
            size, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        result = fold.apply(Message("VeeException", {**body, "id": f"e{number}", "device": f"M{number}"}, f"m{number}"))
        records += len(result.outputs)
        if number % 1000 == 0:
            fold.state.take_changed()
    seconds = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size
    return {
        "exceptions": exceptions, "todos": len(fold.items.all), "raised": sum(item["count"] for item in fold.items.all.values()),
        "records": records, "us_per_exception": round(seconds / (exceptions - warm) * 1e6, 1), "grown_mib": round(grown / 1024, 1),
    }  # fmt: skip
