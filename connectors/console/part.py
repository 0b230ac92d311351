"""The part of the hub that shows the console: what its pages stand on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import structlog
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from connectors.console import figures, surroundings, words
from connectors.console.charts import Beside
from connectors.console.curve import Curve, load_curve
from connectors.console.figures import Memo, Span, link
from connectors.console.settings import Checked, check, digest
from connectors.console.shelf import Arrangement, Proposal, Shelf, new_id
from connectors.head_end.dead_letters import DeadLettersError
from connectors.head_end.problems import ProblemError
from connectors.head_end.versions import Entry
from connectors.rights import scope
from connectors.rights.principal import as_principal, current
from connectors.todo.part import abouts
from connectors.todo.questions import Questions

if TYPE_CHECKING:
    from connectors.head_end.desk import Reader
    from schemas.topology import Topology

MENU: Final = (
    "dashboard", "todos", "meters", "exceptions", "determinants", "usage", "prepaid", "master", "events", "subscribers", "rules",
    "operations", "audit", "users",
)  # fmt: skip
NUMBERS: Final = frozenset(
    {
        "quantity",
        "reading",
        "value",
        "version",
        "count",
        "amount",
        "balance",
        "attempt",
        "records",
        "bytes",
        "priority",
        "rows",
        "parts",
        "lag",
        "seconds",
        "per_row",
        "packed",
        "share",
        "partitions",
    }
)
SLOW: Final = 900.0  # seconds for which neighbours and stations are taken for the same
WARM: Final = 5.0  # seconds between two looks whether a figure of the dashboard is due
USUAL: Final = 3  # days a dashboard shows unless asked otherwise
log = structlog.get_logger(__name__)


def environment() -> Environment:
    """The templates. Everything they are given is escaped."""
    made = Environment(loader=PackageLoader("connectors.console"), autoescape=select_autoescape(), undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    made.globals.update(t=words.catalogue(), link=link, numbers=NUMBERS)
    made.tests["time"] = lambda value: isinstance(value, date)
    made.filters.update(
        when=words.when,
        local=words.local,
        in_zone=words.in_zone,
        changes=words.changes,
        age=words.age,
        due=words.due,
        quantity=words.quantity,
        count=words.count,
        share=words.share,
        money=words.money,
        quality=words.quality,
        size=words.size,
        length_of=words.length_of,
    )
    return made


@dataclass
class Console:
    """What pages may use. ``services`` are the other parts of the hub by name; without a shelf nothing can be kept."""

    reader: Reader
    topology: Topology
    services: Mapping[str, Any] = field(default_factory=dict)
    shelf: Shelf | None = None
    memo: Memo = field(default_factory=Memo)
    templates: Environment = field(default_factory=environment)

    @property
    def todos(self) -> Questions:
        """The answers of the To-Do service; where it does not run, the same answers without acts."""
        desk = self.services.get("todo")
        return desk.todos if desk is not None else Questions(self.topology.todo, self.reader, abouts(self.topology.vee))

    # --- figures ------------------------------------------------------------------------------------------------------------------

    def span(self, at: str | None, days: int) -> Span:
        """The days of a dashboard: up to the full hour, or to the end of the day before ``at``. Raises Problem 422."""
        until = datetime.now(UTC)
        if at:
            try:
                until = min(datetime.fromisoformat(at).replace(tzinfo=UTC), until + timedelta(days=1))
            except ValueError:
                raise ProblemError(422, "not-valid", f"at: {at} is no date such as 2026-03-29") from None
        else:
            until = until.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return Span(until, min(max(days, 1), 92), words.zone_of(self.topology.zone))

    def figure(self, name: str, at: str | None, days: int, *, ready: bool = False) -> figures.Content:
        """What a widget shows of the area of the one who asks, a few seconds old while somebody looks.

        Raises KeyError where there is none of that name, Problem 422.
        """
        area = scope.here()
        widget, key = figures.WIDGETS[name], ("figure", name, at or "", self.span(at, days).days, area)
        return self.memo.get(key, lambda: widget(self.reader, self.span(at, days), area), ready=ready)

    def newest(self) -> datetime | None:
        """The end of the newest day in the store; of the area of the one who asks."""
        area = scope.here()
        if area.everywhere:
            return figures.newest(self.reader, area)
        return self.memo.get(("newest", area), lambda: figures.newest(self.reader, area), SLOW)

    def _keep_figures(self, stop: threading.Event) -> None:
        """Asks for the usual figures again and again, so that who opens the dashboard never waits for a large store."""
        while not stop.wait(WARM):
            for name in figures.WIDGETS:
                if stop.is_set():
                    return
                try:
                    self.figure(name, None, USUAL, ready=True)
                except Exception as error:  # a store that is away for a moment: who looks is told
                    log.warning("a figure of the dashboard could not be made", widget=name, reason=str(error))
                    break

    # --- curves -------------------------------------------------------------------------------------------------------------------

    def curve(
        self, device: str, channel: str, span: tuple[datetime, datetime], zone: ZoneInfo, seconds: int | None = None
    ) -> tuple[Curve, Beside, list[dict[str, Any]]]:
        """A load curve, what stands beside it in the area of the one who asks, and its exceptions."""
        inside = scope.here()
        curve, exceptions = load_curve(self.reader, device, channel, *span, zone, seconds)
        place, near, area = self.memo.get(("near", device, inside), lambda: self._near(device, inside), SLOW)
        stations = self.memo.get(("stations", inside), lambda: surroundings.stations(self.reader, datetime.now(UTC), inside), SLOW)
        station = surroundings.station_for(device, place, stations)
        return (
            curve,
            Beside(
                surroundings.neighbours(self.reader, curve, channel, near, area),
                surroundings.temperature(self.reader, station, curve.begin, curve.end) if station else None,
            ),
            exceptions,
        )

    def _near(self, device: str, inside: scope.Within) -> tuple[surroundings.Place, list[str], str]:
        place = surroundings.place_of(self.reader, device)
        return place, *surroundings.near(self.reader, device, place, inside)

    # --- what people keep ---------------------------------------------------------------------------------------------------------

    def kept(self) -> Shelf:
        """The shelf. Raises Problem 503 where there is none."""
        if self.shelf is None:
            raise ProblemError(503, "no-shelf", "This gateway keeps nothing for the console.")
        return self.shelf

    def arrangement(self) -> Arrangement:
        """How the one who asks arranged their dashboard; as it comes where they did not, or where nothing can be read now."""
        shelf = self.shelf
        found = shelf.get(f"dashboard/{current().name}") if shelf is not None else None
        return found.spec if found is not None else Arrangement()

    def arrange(self, wanted: Arrangement) -> Arrangement:
        """Keeps an arrangement for the one who asks. Raises Problem 409, 503."""
        shelf, who = self.kept(), current().name
        known = set(figures.WIDGETS)
        spec = Arrangement(**{name: tuple(id for id in ids if id in known) for name, ids in wanted.model_dump().items()})
        shelf.put(f"dashboard/{who}", spec, "arrange", actor=who, before=shelf.found(f"dashboard/{who}"))
        return spec

    def propose(self, text: str, title: str, since: date, reason: str, actor: str) -> tuple[Entry, Checked]:
        """Keeps a topology.yaml that was checked. Raises Problem 422 for one that cannot be used, or that changes nothing."""
        told = check(self.topology, text, since)
        if told.error:
            raise ProblemError(422, "not-valid", told.error)
        if not told.settings:
            raise ProblemError(422, "not-valid", "It says the same as what is in force.")
        spec = Proposal(title=title, effective_from=since, text=text, base=digest(self.topology), digest=told.digest)
        shelf = self.kept()
        id = f"proposal/{new_id(told.digest, since.isoformat(), title)}"
        return shelf.put(id, spec, "propose", actor=actor, reason=reason, before=shelf.found(id)), told

    def withdraw(self, name: str, actor: str, reason: str) -> Entry:
        """Takes a proposal back; it stays readable. Raises Problem 404, 409."""
        entry = self.proposal(name)
        if not entry.active:
            raise ProblemError(409, "conflict", "It has been withdrawn already.")
        return self.kept().put(entry.id, entry.spec, "withdraw", actor=actor, status="withdrawn", reason=reason, before=entry)

    def proposal(self, name: str) -> Entry:
        """A proposal. Raises Problem 404."""
        entry = self.kept().found(f"proposal/{name}")
        if entry is None:
            raise ProblemError(404, "not-found", "There is no proposal of this id.")
        return entry

    def proposals(self) -> list[dict[str, Any]]:
        """All proposals, the newest first; none where nothing is kept."""
        now = digest(self.topology)
        return [self.told(entry, now) for entry in self.shelf.of_kind("proposal")] if self.shelf is not None else []

    def told(self, entry: Entry, now: str | None = None) -> dict[str, Any]:
        """A proposal as it is shown: its state is ``in-force`` as soon as the hub runs with what it says."""
        spec: Proposal = entry.spec
        now = now or digest(self.topology)
        state = "in-force" if spec.digest == now else entry.status if not entry.active else "proposed"
        return {
            "id": entry.name, "title": spec.title, "state": state, "effective_from": spec.effective_from.isoformat(), "by": entry.actor,
            "at": datetime.fromtimestamp(entry.at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "reason": entry.reason,
            "outdated": state == "proposed" and spec.base != now, "version": entry.version,
        }  # fmt: skip

    # --- other parts --------------------------------------------------------------------------------------------------------------

    def subscribers(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Subscribers and integration objects, as the API shows them. Raises Problem 503 while the registry is not read."""
        door = self.services.get("delivery")
        if door is None:
            return [], []
        door.ready()
        from connectors.subscribers import objects

        found = [door.shown(entry) for entry in door.service.registry.entries().values() if entry.status != "ended"]
        tools = door.service.tools
        return found, [objects.describe(tools.topology, tools.codec, name) for name in objects.DEFINITIONS]

    def letters(self) -> tuple[list[dict[str, Any]], str]:
        """Dead letters that wait, or why they cannot be told."""
        desk = self.services.get("dead-letters")
        if desk is None:
            return [], ""
        try:
            return desk.waiting(), ""
        except DeadLettersError as error:
            return [], str(error)
        except ProblemError as error:
            return [], error.detail

    def waiting(self) -> list[dict[str, Any]]:
        """Large acts and bulk orders that wait for a second person, each with the address that decides it."""
        found: list[dict[str, Any]] = []
        todo, bulk = self.services.get("todo"), self.services.get("bulk")
        if todo is not None:
            found += [{**act, "door": f"/v1/todo-acts/{act['id']}", "kind": "todos"} for act in todo.todos.acts()]
        if bulk is not None and current().may("commands.read"):
            with as_principal(current(), "commands.read"):
                orders = [order.model_dump() for order in bulk.waiting()]
            found += [{**order, "door": f"/v1/bulk-orders/{order['id']}", "kind": "exceptions"} for order in orders]
        return found

    def roles(self) -> list[str]:
        """The roles that To-Dos go to."""
        todo = self.topology.todo
        escalated = {kind.escalate_to for kind in todo.types if kind.escalate_to}
        return sorted({kind.role for kind in todo.types} | {route.role for route in todo.routes} | escalated)

    def users(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Users and roles, as the API shows them."""
        from connectors.rights.accounts import shown_user

        part = self.services.get("rights")
        accounts = part.rights.accounts if part is not None else None
        people = [shown_user(entry) for entry in accounts.of_kind("user")] if accounts is not None else []
        return people, [{"name": name, **role.model_dump()} for name, role in self.topology.rights.all_roles.items()]

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """The thread that has the dashboard ready."""
        return {"console-figures": self._keep_figures}

    def close(self) -> None:
        """Lets its threads go."""
        self.memo.workers.shutdown(wait=False, cancel_futures=True)
