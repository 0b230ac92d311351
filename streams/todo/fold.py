"""The To-Do agent: exceptions, commands and ticks in; To-Dos, their history, and outcomes out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import orjson

from schemas.identity import identity
from schemas.topology.todo import HIGHEST, LOWEST, TodoSettings, TodoType
from streams.runtime.audit import Chain
from streams.runtime.fold import Message, Output, Result
from streams.runtime.seen import Seen
from streams.runtime.state import State, Table
from streams.todo.hours import Hours
from streams.todo.items import COMPLETED, KEPT, OPEN, WORKING, Item, Items

TODOS: Final = "todo.items"
EVENTS: Final = "todo.events"
OUTCOMES: Final = "todo.outcomes"
SYSTEM: Final = "system"
LEVELS: Final = 3  # a To-Do is escalated so often at most
_TIMES: Final = ("first_seen", "last_seen", "start", "end", "assign_by", "resolve_by", "completed_at", "bill_at")
_FACTS: Final = ("service_point", "account", "commodity", "region", "customer_class", "bill_at")  # of master data and billing periods
_HOUR: Final = 3600
_BATCH: Final = 7 * 86_400  # how long it is remembered how much one payload raised
_BLANK: Final = (
    "device", "channel", "service_point", "account", "payload", "rule", "severity", "user", "outcome", "reason", "detail", "commodity",
    "region", "customer_class",
)  # fmt: skip
_INNER: Final = ("key", "raised", "forget_at", "untold", "base", "routed", "weighed", "decision")
_SHOWN: Final = ("state", "priority", "role", "user", "count", "open", "level", "outcome", "reason", *_FACTS)


class TodoFold:
    """Folds the To-Do inbox. One partition holds all: what is grouped, counted and shared out must meet."""

    def __init__(self, settings: TodoSettings) -> None:
        self.settings = settings
        self.state = State(lambda _: Table({}))
        self.items = Items(self.state)
        self.hours = Hours(settings.hours)
        self.audit = Chain(self.state, "todo", 0)
        self._seen = Seen(self.state, "c/", 262_144)

    @property
    def now(self) -> int:
        """UTC seconds of the last tick."""
        return int(self.state.entries.get("now", b"0"))

    def apply(self, message: Message) -> Result:
        """Folds one message in."""
        result = Result()
        if message.type == "VeeException":
            self._exception(message, result)
        elif message.type == "TodoCommand":
            Act(self, message.body, result).run()
        elif message.type == "Tick" and message.body["at"] > self.now:
            before, now = self.now, message.body["at"]
            self.state.put("now", str(now).encode())
            self._tick(result, sweep=before // _HOUR != now // _HOUR)
        return result

    # --- exceptions -------------------------------------------------------------------------------------------------------------------

    def _exception(self, message: Message, result: Result) -> None:
        """Raises, counts or closes the To-Do an exception belongs to."""
        body = message.body
        known = self.items.of_exception(body["id"])
        if body["status"] != "open":
            if known is not None:
                self._closed(known, body, message.id, result)
            return
        kind = self.settings.type_for(body["rule"], body["severity"])
        if kind is None:
            return
        found = {
            "subject": f"{body['device']}/{body['channel']}", "device": body["device"], "channel": body["channel"],
            "service_point": body["service_point"], "payload": body["payload"], "rule": body["rule"], "severity": body["severity"],
            "start": int(body["start"].timestamp()), "end": int(body["end"].timestamp()), "detail": body["detail"],
        }  # fmt: skip
        if known is not None and known["state"] != COMPLETED:
            if known["detail"] != body["detail"] and not known["grouped"]:
                self.change(known, result, "raised", SYSTEM, message.id, last_seen=self.now, detail=body["detail"])
            return
        batch = body["payload"] or f"@{self.now}"
        if self._flood(kind, batch):
            of = f"payload {body['payload']}" if body["payload"] else f"{moment(self.now):%Y-%m-%dT%H:%M:%SZ}"
            found |= {"subject": f"{body['rule']}: {of}", "device": "", "channel": "", "service_point": "", "grouped": True}
        self.raise_(kind, found, body["id"], message.id, result)

    def _flood(self, kind: TodoType, batch: str) -> bool:
        """Counts what one payload (or one moment) raised of a type; true when more of it are to be one To-Do per rule."""
        key = f"g/{kind.id}/{batch}"
        count = int(self.state.entries.get(key, b"0").split()[0])
        if count < kind.together_above:
            self.state.put(key, f"{count + 1} {self.now}".encode())
        return count >= kind.together_above

    def raise_(self, kind: TodoType, found: dict[str, Any], exception: str, cause: str, result: Result, by: str = SYSTEM) -> Item:
        """Opens a To-Do, or adds to the one that is open about the same thing."""
        grouped = bool(found.get("grouped"))
        key = identity(kind.id, found["subject"], found.get("rule", ""))
        item = self.items.of_key(key)
        if item is not None and item["state"] != COMPLETED:
            names = item["exceptions"] if not exception or len(item["exceptions"]) >= KEPT else [*item["exceptions"], exception]
            more = {"count": item["count"] + 1, "open": item["open"] + bool(exception), "last_seen": self.now, "exceptions": names}
            if item["start"] is not None and found.get("start") is not None:
                more |= {"start": min(item["start"], found["start"]), "end": max(item["end"], found["end"])}
            if grouped:  # a million of them are told of by the next tick, not one by one
                self.items.save(item | more | {"untold": True})
            else:
                self.change(item, result, "raised", by, cause, **more)
            return item
        now = self.now
        number = 1 if item is None else item["raised"] + 1
        item = dict.fromkeys(_BLANK, "") | {
            "id": identity("todo", key, number), "key": key, "raised": number, "version": 0, "type": kind.id, "state": OPEN, "count": 1,
            "open": int(bool(exception)), "grouped": grouped, "first_seen": now, "last_seen": now, "start": None, "end": None,
            "bill_at": None, "level": 0, "completed_at": None, "forget_at": 0, "exceptions": [exception] if exception else [],
            "routed": True, "weighed": True, "decision": None, **self._deadlines(kind), **found,
        }  # fmt: skip
        role, base = self._way(kind, item)
        item |= {"role": found.get("role") or role, "base": found.get("priority") or base}
        self.change(item | {"priority": self._priority(item)}, result, "created", by, cause)
        return item

    def _deadlines(self, kind: TodoType) -> dict[str, int]:
        now = self.now
        return {"assign_by": self.hours.after(now, kind.assign_within), "resolve_by": self.hours.after(now, kind.resolve_within)}

    def _way(self, kind: TodoType, told: dict[str, Any]) -> tuple[str, int]:
        """Whose it is, and how urgent before deadlines count."""
        route = next((route for route in self.settings.routes if route.matches(told)), None)
        return (kind.role, kind.priority) if route is None else (route.role, kind.priority + route.more_urgent)

    def _priority(self, item: Item) -> int:
        """How urgent a To-Do is now: its type's and route's priority, how often it was escalated, how near its bill is."""
        return int(min(max(item["base"] + self._urgency(item), LOWEST), HIGHEST))

    def _urgency(self, item: Item) -> int:
        left = None if item["bill_at"] is None else item["bill_at"] - self.now
        return int(item["level"]) + (0 if left is None else sum(left <= span for span in self.settings.bill_bands))

    def weighed(self, item: Item, priority: int) -> dict[str, Any]:
        """A priority that a person gave: escalation and deadlines still add to it, routes no longer count."""
        return {"priority": priority, "base": priority - self._urgency(item), "weighed": False}

    def facts(self, item: Item, told: dict[str, Any], cause: str, result: Result) -> bool:
        """Takes what master data and billing periods say about a To-Do; it may go another way by it. False: nothing is new."""
        new = {name: told[name] for name in _FACTS if told.get(name) not in (None, "", item[name])}
        kind = self.settings.type_of(item["type"])
        if not new or kind is None:
            return False
        role, base = self._way(kind, item | new)
        if item["routed"] and item["state"] == OPEN:
            new["role"] = role
        if item["weighed"]:
            new["base"] = base
        self.change(item, result, "routed", SYSTEM, cause, priority=self._priority(item | new), **new)
        return True

    def reopened(self, item: Item) -> dict[str, Any]:
        """What a To-Do that is opened again has: nobody works on it, and its deadlines begin anew."""
        kind = self.settings.type_of(item["type"])
        times = self._deadlines(kind) if kind is not None else {"assign_by": None, "resolve_by": None}
        return {"state": OPEN, "user": "", "outcome": "", "reason": "", "completed_at": None, "level": 0, "decision": None, **times}

    def _closed(self, item: Item, body: dict[str, Any], cause: str, result: Result) -> None:
        """The cause of a To-Do is gone, or one of its causes."""
        left = max(item["open"] - 1, 0)
        names = [name for name in item["exceptions"] if name != body["id"]]
        if item["state"] == COMPLETED:
            return
        if left:
            self.change(item, result, "raised", SYSTEM, cause, open=left, exceptions=names)
        else:
            said = item["decision"] or {"by": SYSTEM, "outcome": "auto", "reason": f"exception {body['status']}"}
            self.complete(item, result, said["by"], cause, said["outcome"], said["reason"], f"exception {body['status']}")

    # --- changes ----------------------------------------------------------------------------------------------------------------------

    def change(self, item: Item, result: Result, action: str, by: str, command: str, text: str = "", /, **fields: Any) -> None:
        """A new version of a To-Do, its history and its record."""
        before = {name: item[name] for name, value in fields.items() if name in _SHOWN and item[name] != value}
        new = item | fields | {"version": item["version"] + 1, "untold": False}
        self.items.save(new)
        after = {name: new[name] for name in before}
        event = {
            "id": identity("todo-event", new["id"], new["version"]), "todo": new["id"], "version": new["version"],
            "at": moment(self.now), "action": action, "user": by, "command": command, "text": text,
            "before": orjson.dumps(before).decode() if before else "", "after": orjson.dumps(after).decode() if after else "",
        }  # fmt: skip
        record = {name: value for name, value in new.items() if name not in _INNER}
        record |= {name: None if new[name] is None else moment(new[name]) for name in _TIMES}
        result.outputs.append(Output(EVENTS, "TodoEvent", event, new["id"].encode()))
        result.outputs.append(Output(TODOS, "Todo", record, new["id"].encode()))

    def complete(self, item: Item, result: Result, user: str, command: str, outcome: str, reason: str, text: str = "") -> None:
        """Ends a To-Do."""
        forget = self.now + self.settings.reopen_within
        fields = {"state": COMPLETED, "outcome": outcome, "reason": reason, "completed_at": self.now, "forget_at": forget, "open": 0}
        self.change(item, result, "completed", user, command, text, **fields)

    # --- time -------------------------------------------------------------------------------------------------------------------------

    def _tick(self, result: Result, *, sweep: bool) -> None:
        now = self.now
        for item in self.items.untold():
            self.change(item, result, "raised", SYSTEM, f"tick/{now}", f"{item['count']} in all")
        for item in self.items.overdue(now):
            if item["state"] == COMPLETED:
                self.items.drop(item)
            else:
                self._escalate(item, result, f"tick/{now}")
        if sweep:
            self._sweep(result)

    def _sweep(self, result: Result) -> None:
        """Once an hour: bills have come nearer, and what is kept for a while only goes."""
        now = self.now
        for item in list(self.items.all.values()):
            if item["bill_at"] is not None and item["state"] != COMPLETED and (priority := self._priority(item)) != item["priority"]:
                self.change(item, result, "prioritised", SYSTEM, f"tick/{now}", "the end of its billing period", priority=priority)
        for key, data in list(self.state.entries.items()):
            gone = orjson.loads(data)["until"] <= now if key.startswith("b/") else (
                key.startswith("g/") and int(data.split()[1]) + _BATCH < now
            )  # fmt: skip
            if gone:
                self.state.put(key, None)

    def _escalate(self, item: Item, result: Result, cause: str) -> None:
        """Past a deadline a To-Do becomes more urgent and goes to those who can shift work; three times at most."""
        kind = self.settings.type_of(item["type"])
        deadline = "assign_by" if item["state"] == OPEN else "resolve_by"
        fields: dict[str, Any] = {"level": item["level"] + 1, deadline: None, "routed": False}
        fields["priority"] = self._priority(item | fields)
        if kind is not None and item["level"] + 1 < LEVELS:
            span = kind.assign_within if item["state"] == OPEN else kind.resolve_within
            fields[deadline] = self.hours.after(self.now, span)
        if kind is not None and kind.escalate_to and item["state"] == OPEN:
            fields["role"] = kind.escalate_to
        what = "nobody has taken it" if item["state"] == OPEN else "it is not done"
        self.change(item, result, "escalated", SYSTEM, cause, f"{what} in time", **fields)


class Act:
    """One command: what it changes, and what came of it."""

    def __init__(self, fold: TodoFold, body: dict[str, Any], result: Result) -> None:
        self.fold, self.body, self.result = fold, body, result
        self.user, self.id = body["user"], body["id"]
        self.done: list[str] = []
        self.conflicts: list[str] = []
        self.before: list[Item] = []  # of what it changed: id, version, and the fields as they were
        approver = body["approver"]
        self.text = f"{body['text']} (approved by {approver})".strip() if approver else body["text"]

    def run(self) -> None:
        """Carries the command out, once."""
        if not self.fold._seen.is_new(self.id):
            self._outcome("duplicate", "")
            return
        try:
            self._carry_out()
        except RefusedError as refused:
            self._outcome("refused", str(refused))
            return
        if self.before and self.fold.settings.undo_within and self.body["action"] != "undo":
            kept = {"until": self.fold.now + self.fold.settings.undo_within, "items": self.before}
            self.fold.state.put(f"b/{self.id}", orjson.dumps(kept))
        status = "done" if not self.conflicts else "partly" if self.done else "conflict"
        detail = f"{len(self.conflicts)} had been changed or completed before" if self.conflicts else ""
        self._outcome(status, detail)

    def _carry_out(self) -> None:
        action, body, fold = self.body["action"], self.body, self.fold
        if len(body["todos"]) > fold.settings.bulk_alone and body["approver"] in ("", self.user):
            raise RefusedError(f"more than {fold.settings.bulk_alone} To-Dos in one act need the approval of a second person")
        if action == "next":
            item = fold.items.next_for(list(body["roles"]))
            if item is None:
                raise RefusedError("nothing waits for your roles")
            self._change(item, "assigned", state=WORKING, user=self.user)
        elif action in ("create", "found", "gone", "facts"):
            self._from_items(action)
        elif action == "undo":
            self._undo()
        elif action in _ACTIONS:
            self._each(action)
        else:
            raise RefusedError(f"there is no action {action[:40]!r}")

    def _each(self, action: str) -> None:
        versions = self.body["versions"]
        for number, id in enumerate(self.body["todos"]):
            item = self.fold.items.get(id)
            if item is None:
                if len(self.body["todos"]) == 1:
                    raise RefusedError(f"there is no live To-Do {id[:40]}")
                self.conflicts.append(id)
                continue
            if number < len(versions) and versions[number] != item["version"]:
                self.conflicts.append(id)
                continue
            if (item["state"] == COMPLETED) != (action == "reopen") and action != "comment":
                self.conflicts.append(id)
                continue
            self._one(action, item)

    def _one(self, action: str, item: Item) -> None:
        body, fold = self.body, self.fold
        if action == "assign":
            self._change(item, "assigned", state=WORKING, user=body["to"] or self.user)
        elif action == "distribute":
            if not body["roles"]:
                raise RefusedError("distribute names the users")
            self._change(item, "assigned", state=WORKING, user=fold.items.least_loaded(list(body["roles"])))
        elif action == "resolve":
            decision = {"by": self.user, "outcome": body["to"] or "done", "reason": body["reason"]}
            self._change(item, "resolving", state=WORKING, user=self.user, decision=decision)
        elif action == "release":
            self._change(item, "released", state=OPEN, user="")
        elif action == "forward":
            if not body["to"] and not body["role"]:
                raise RefusedError("forward names a user or a role")
            moved = {"state": WORKING, "user": body["to"]} if body["to"] else {"state": OPEN, "user": "", "role": body["role"]}
            self._change(item, "forwarded", routed=False, **moved)
        elif action == "comment":
            if not body["text"]:
                raise RefusedError("a comment needs a text")
            self._change(item, "commented")
        elif action == "complete":
            fold.complete(item, self.result, self.user, self.id, body["to"] or "done", body["reason"], self.text)
            self._remember(item)
        elif action == "reopen":
            self._change(item, "reopened", **fold.reopened(item))
        else:
            if not (body["to"].isascii() and body["to"].isdigit() and LOWEST <= int(body["to"]) <= HIGHEST):
                raise RefusedError(f"a priority is a number from {LOWEST} to {HIGHEST}")
            self._change(item, "prioritised", **fold.weighed(item, int(body["to"])))

    def _change(self, item: Item, action: str, **fields: Any) -> None:
        self.fold.change(item, self.result, action, self.user, self.id, self.text, **fields)
        self._remember(item)

    def _remember(self, item: Item) -> None:
        """Notes what the act has just changed of a To-Do."""
        new = self.fold.items.all[item["id"]]
        self.before.append({name: value for name, value in item.items() if new[name] != value or name in ("id", "version")})
        self.done.append(item["id"])

    def _from_items(self, action: str) -> None:
        """What a person or a search of the store found, or found to be gone. Nothing is done where one of them is not right."""
        try:
            found = orjson.loads(self.body["items"] or "[]")
        except orjson.JSONDecodeError:
            raise RefusedError("items is not JSON") from None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise RefusedError("items is a list of objects")
        if action in ("gone", "facts"):
            self._told(action, found)
            return
        kinds = [self.fold.settings.type_of(str(one.get("type"))) for one in found]
        if None in kinds or not all(one.get("subject") for one in found):
            raise RefusedError("an item needs a subject and a type that there is")
        for kind, one in zip(kinds, found, strict=True):
            assert kind is not None
            fields: dict[str, Any] = {name: str(one[name]) for name in _TEXTS if name in one}
            fields |= {name: int(one[name]) for name in _NUMBERS if isinstance(one.get(name), int)}
            known = self.fold.items.of_key(identity(kind.id, fields["subject"], ""))
            if known is None or known["state"] == COMPLETED or action == "create":
                by = self.user if action == "create" else SYSTEM
                self.done.append(self.fold.raise_(kind, fields, "", self.id, self.result, by)["id"])

    def _told(self, action: str, found: list[dict[str, Any]]) -> None:
        """Facts about To-Dos, or that the cause of some is gone. One that has changed since it was looked at is left alone."""
        for one in found:
            item = self.fold.items.get(str(one.get("todo")))
            if item is None or item["state"] == COMPLETED:
                continue
            if action == "facts":
                if self.fold.facts(item, one, self.id, self.result):
                    self.done.append(item["id"])
            elif not item["untold"] and one.get("version") in (None, item["version"]):
                self.fold.complete(item, self.result, SYSTEM, self.id, "auto", str(one.get("detail") or "no longer found"))
                self.done.append(item["id"])

    def _undo(self) -> None:
        """Takes an act back where nobody has changed the To-Do since."""
        data = self.fold.state.entries.get(f"b/{self.body['of']}")
        kept = orjson.loads(data) if data else None
        if kept is None or kept["until"] <= self.fold.now:
            raise RefusedError("that act cannot be undone, or not any more")
        for before in kept["items"]:
            item = self.fold.items.get(before["id"])
            if item is None or item["version"] != before["version"] + 1:
                self.conflicts.append(before["id"])
                continue
            fields = {name: value for name, value in before.items() if name not in ("version", "id", "untold")}
            self.fold.change(item, self.result, "undone", self.user, self.id, self.text, **fields)
            self.done.append(item["id"])
        self.fold.state.put(f"b/{self.body['of']}", None)

    def _outcome(self, status: str, detail: str) -> None:
        if self.user != SYSTEM and status != "duplicate":
            self._audit(detail if status == "refused" else "")
        body = {
            "id": self.id, "at": moment(self.fold.now), "action": self.body["action"], "user": self.user, "status": status,
            "detail": detail, "done": self.done, "conflicts": self.conflicts,
        }  # fmt: skip
        self.result.outputs.append(Output(OUTCOMES, "TodoOutcome", body, self.id.encode()))

    def _audit(self, refused: str) -> None:
        """Entries of the audit for what a person did: of each To-Do that it changed, and of those that it did not."""
        told = [output.body for output in self.result.outputs if output.type == "TodoEvent" and output.body["user"] == self.user]
        for event in told:
            self._entry(event["todo"], "applied", event["text"], before=event["before"], after=event["after"])
        for id in self.conflicts:
            self._entry(id, "refused", "somebody had changed or completed it before")
        if refused:
            self._entry(next(iter(self.body["todos"]), "todos"), "refused", refused)

    def _entry(self, todo: str, outcome: str, detail: str, **more: str) -> None:
        item, now = self.fold.items.get(todo) or {}, self.fold.now
        start, end = (now if item.get(name) is None else item[name] for name in ("start", "end"))
        bulk, _, part = self.id.partition("/")
        body = {
            "id": identity("audit", self.id, todo), "at": moment(now), "actor": self.user, "action": f"todo-{self.body['action']}",
            "command": self.id, "subject": todo, "device": item.get("device", ""), "channel": item.get("channel", ""),
            "start": moment(start), "end": moment(end), "reason": self.body["reason"], "outcome": outcome, "detail": detail,
            "bulk": bulk if part else "", "approved_by": self.body["approver"], **more,
        }  # fmt: skip
        self.result.outputs.append(self.fold.audit.output(body))


_TEXTS: Final = ("subject", "device", "channel", "service_point", "account", "payload", "detail", "role", "severity")
_NUMBERS: Final = ("start", "end", "priority")
_ACTIONS: Final = frozenset(("assign", "distribute", "release", "forward", "comment", "resolve", "complete", "reopen", "prioritise"))


class RefusedError(Exception):
    """A command that changes nothing; the message says why."""


def moment(second: int) -> datetime:
    """UTC seconds as an aware time."""
    return datetime.fromtimestamp(second, UTC)
