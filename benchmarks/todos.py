"""``mdh bench todos``: queue and dashboard with a long history and a large fleet against the same without; a storm of exceptions.

Both stores hold the same live To-Dos. One has millions of completed ones with their history beside, and a million meters: master data,
a day of reads, an open exception each. Asked are the To-Do service (queue, groups, figures, one To-Do) and the console's pages (queue,
dashboard with all widgets), as they answer while the hub keeps the usual figures ready; what it costs to make each figure is told
beside. The storm
goes through the agent's fold alone. Times are processor times of the whole process, engine included, because other work on the machine
must not count; what people wait on an idle machine is no more than that.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from fastapi.testclient import TestClient

from connectors.clickhouse import migrate
from connectors.clickhouse.store import Store, open_store
from connectors.console.figures import WIDGETS, Memo
from connectors.console.part import USUAL, Console
from connectors.console.routes import routes
from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.reading import StoreReader
from connectors.todo.part import tidy
from connectors.todo.questions import Questions, Selection
from schemas.topology import load_topology
from schemas.topology.todo import TodoSettings
from streams.runtime.fold import Message
from streams.todo.fold import TodoFold

LIVE: Final = 20_000
ROUNDS: Final = 15
AT_ONCE: Final = 1_000_000
UNTIDIED: Final = 200_000
DAY: Final = "2026-03-03"  # the dashboard looks at the days before
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
        with ExitStack() as stack:
            say("the empty system")
            empty = stack.enter_context(Side(folder / "empty", 0, 0, say))
            say("the full one")
            full = stack.enter_context(Side(folder / "full", completed, meters, say))
            say("both in turn")
            times = _in_turn(empty, full)
            made = full.made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say("a storm of exceptions")
    cpu = {name: [statistics.median(used for _, used in side) for side in sides] for name, sides in times.items()}
    wall = {name: [min(passed for passed, _ in side) for side in sides] for name, sides in times.items()}
    ratios, wall_ratios = ({name: round(b / a, 2) for name, (a, b) in kind.items()} for kind in (cpu, wall))
    slowest = max(b for _, b in wall.values())
    return {
        "bench": "todos", "completed": completed, "live": LIVE, "meters": meters, **_ms("", cpu), "ratios": ratios,
        "ratio": max(ratios.values()), **_ms("wall_", wall), "wall_ratios": wall_ratios, "wall_ratio": max(wall_ratios.values()),
        "slowest_wall_ms": round(slowest * 1000, 1), "figures_made_ms": {name: round(value * 1000, 1) for name, value in made.items()},
        **storm(exceptions),
    }  # fmt: skip


def _ms(kind: str, figures: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Milliseconds of both sides."""
    sides = enumerate(("empty", "full"))
    return {f"{kind}{side}_ms": {name: round(both[place] * 1000, 1) for name, both in figures.items()} for place, side in sides}


Taken = tuple[float, float]
"""Seconds on the clock on the wall, and of all processors."""


class Side:
    """A store with its questions in a process of its own, so that two engines answer in turn."""

    def __init__(self, folder: Path, completed: int, meters: int, say: Say) -> None:
        start = multiprocessing.get_context("spawn")
        self._here, there = start.Pipe()
        self._process = start.Process(target=_side, args=(there, folder, completed, meters), daemon=True)
        self._process.start()
        there.close()
        while isinstance(said := self._here.recv(), str):
            say(said)
        self.names, self.made = said

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._here.send("")
        self._process.join(60)

    def ask(self, name: str) -> Taken:
        """What one question takes."""
        self._here.send(name)
        taken: Taken = self._here.recv()
        return taken


def _in_turn(empty: Side, full: Side) -> dict[str, tuple[list[Taken], list[Taken]]]:
    """What each question takes, asked of both again and again, one after the other; the first time does not count."""
    found: dict[str, tuple[list[Taken], list[Taken]]] = {name: ([], []) for name in empty.names}
    for round_ in range(ROUNDS + 1):
        for name, sides in found.items():
            for side, taken in zip((empty, full), sides, strict=True):
                one = side.ask(name)
                if round_:
                    taken.append(one)
    return found


def _side(there: Connection, folder: Path, completed: int, meters: int) -> None:
    """Fills a store and answers questions by name until it is told an empty one."""
    store = open_store(f"chdb://{folder}")
    migrate.up(store)
    _fill(store, completed, meters, there.send)
    tidy(store)
    with _asks(store) as (asks, made):
        there.send((list(asks), made))
        while name := there.recv():
            began, used = time.perf_counter(), time.process_time()
            asks[name]()
            there.send((time.perf_counter() - began, time.process_time() - used))
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
        store.command(
            "INSERT INTO todo_event_log (id, todo, version, at, action, user, command, before, after, text) SELECT hex(number), "
            f"concat('c', hex(cityHash64(number))), 3, toDateTime({_START} - 20000000, 'UTC'), 'completed', 'ann', hex(number), "
            f"'', '', '' {source}"
        )
        say(f"{min(first + AT_ONCE, completed):,} completed")
    # Between two tidyings completed ones lie among the live ones
    source = f"FROM numbers({min(completed, UNTIDIED)})"
    store.command(f"INSERT INTO todo_open ({_COLUMNS}, done) SELECT {done}, 1 {source}")
    if meters:
        _fleet(store, meters)
        say(f"{meters:,} meters")


def _fleet(store: Store, meters: int) -> None:
    """Master data, a day of reads and an open exception for each meter."""
    day, source = f"toDateTime({_START}, 'UTC')", f"FROM numbers({meters})"
    store.command(
        "INSERT INTO final_days (device, channel, unit, zone, day, day_start, seconds, step, version, state, multiplier, values, "
        f"conditions, service_point, source) SELECT concat('M', toString(number)), 'E1', 'kWh', 'UTC', toDate({day}), {day}, 3600, 1, 1, "
        "1, 1000000, arrayMap(i -> toInt64(i * number % 1000), range(24)), arrayMap(i -> 500000, range(24)), "
        f"concat('SP', toString(number)), ['hes-1', 'hes-2'][number % 2 + 1] {source}"
    )
    for kind, id, body in (
        ("device", "concat('M', toString(number))", '{"head_end":"hes-1","dcu":"DCU-%s"}'),
        ("service_point", "concat('SP', toString(number))", '{"region":"r%s","grid_area":"g1"}'),
    ):
        text = "concat('" + body.replace("%s", "', toString(number % 50), '") + "')"
        store.command(
            "INSERT INTO master_objects (kind, object, version, sequence, at, source, action, span_from, span_to, span_body) SELECT "
            f"'{kind}', {id}, 1, number, {day}, 'bench', 'put', [-1], [-1], [{text}] {source}"
        )
    store.command(
        "INSERT INTO vee_exceptions (id, rule, severity, device, channel, start, end, status, detail, count, version, payload) SELECT "
        "hex(number), ['interval-spike', 'missing-quantity'][number % 2 + 1], 'issue', concat('M', toString(number)), 'E1', "
        f"{day} - number % 900000, {day}, 'open', 'a value far above the rest', 1, 1, 'p' {source}"
    )


@contextmanager
def _asks(store: Store) -> Iterator[tuple[dict[str, Callable[[], Any]], dict[str, float]]]:
    """The questions by name, and processor seconds that each figure of the dashboard takes to be made."""
    questions = Questions(TodoSettings(), StoreReader(store, 1))
    page = questions.page(Selection(), "priority", None, 100)
    one = page["items"][0]["id"]
    asks: dict[str, Callable[[], Any]] = {
        "queue": lambda: questions.page(Selection(), "priority", None, 100),
        "queue_filtered": lambda: questions.page(Selection(role=["clerk"], rule=["interval-spike"]), "oldest", None, 100),
        "next_page": lambda: questions.page(Selection(), "priority", page["next"], 100),
        "groups": lambda: questions.groups(Selection(), "rule"),
        "stats": questions.stats,
        "todo": lambda: questions.detail(one),
    }
    console = Console(StoreReader(store, 1), load_topology(None), memo=Memo(clock=lambda: 0.0))  # what is made stays: nothing is asked anew
    nothing: Any = None
    app = create_app(Desk(nothing, console.reader, nothing, list), [routes(console)])
    made = {}
    with TestClient(app) as client:

        def get(path: str) -> None:
            answer = client.get(path)
            assert answer.status_code == 200, answer.text

        for name in WIDGETS:
            began = time.process_time()
            console.figure(name, DAY, USUAL)
            made[name] = time.process_time() - began
        asks["queue_page"] = lambda: get("/console/todos")
        asks["dashboard"] = lambda: get(f"/console/?at={DAY}")
        asks["widgets"] = lambda: [get(f"/console/widgets/{name}?at={DAY}") for name in WIDGETS]
        yield asks, made
    console.close()


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
