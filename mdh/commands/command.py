"""``mdh command``: edit, accept, estimate, discard, force and re-vee the days of a channel on a running hub."""

from __future__ import annotations

import getpass
import json
import time
import uuid
from typing import Annotated, Any

import typer

from mdh.errors import UsageError
from mdh.running import HubClient, hub_url

app = typer.Typer(help="Order something done with the days of a channel.", no_args_is_help=True, add_completion=False)

Device = Annotated[str, typer.Option(help="Device of the channel.")]
Channel = Annotated[str, typer.Option(help="The channel.")]
Start = Annotated[str, typer.Option("--from", help="ISO time with offset: where the span begins; of a register read: when it was read.")]
End = Annotated[str | None, typer.Option("--to", help="ISO time with offset: where it ends, exclusive.")]
Reason = Annotated[str, typer.Option(help="Reason code, for the audit.")]
User = Annotated[str | None, typer.Option(help="Who orders it; default: you.")]
Version = Annotated[int | None, typer.Option("--expect", help="Refuse unless the newest version of these days is this.")]
Seconds = Annotated[int | None, typer.Option(help="Interval length, where the channel has several.")]
Key = Annotated[str | None, typer.Option(help="Idempotency key: the same key twice is one command.")]
Url = Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")]
About = Annotated[str | None, typer.Option("--exception", help="Id of the anomaly this settles; insights learns from it.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is decided, with its entry of the audit.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Say what it would change, and change nothing.")]
PATIENCE = 300.0


def _order(url: str | None, key: str | None, wait: bool, user: str | None, **asked: Any) -> None:
    body = {name: value for name, value in asked.items() if value is not None} | {"user": user or getpass.getuser()}
    with HubClient(hub_url(url)) as hub:
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        id_ = hub.call("POST", "/v1/commands", json=body, headers=headers).json()["id"]
        if not wait:
            print(json.dumps({"id": id_}))
            return
        answer = _answer(hub, id_, PATIENCE)
    print(json.dumps(answer))
    if answer["outcome"] == "refused":
        raise UsageError(f"refused: {answer['detail']}")


def _answer(hub: HubClient, id_: str, patience: float) -> dict[str, Any]:
    deadline = time.monotonic() + patience
    while True:
        answer = hub.call("GET", f"/v1/commands/{id_}", accept=frozenset({404}))
        if answer.status_code != 404:
            found: dict[str, Any] = answer.json()
            return found
        if time.monotonic() >= deadline:
            raise UsageError(f"command {id_} is not decided yet: ask again with 'mdh command show {id_}'")
        time.sleep(0.3)


@app.command()
def edit(
    device: Device, channel: Channel, start: Start, end: End = None,
    values: Annotated[str | None, typer.Option(help="One per interval, separated by commas; an empty one leaves its interval.")] = None,
    reading: Annotated[str | None, typer.Option(help="Of a register read.")] = None,
    reason: Reason = "", user: User = None, expect: Version = None, seconds: Seconds = None, key: Key = None, url: Url = None,
    wait: Wait = True, dry_run: Dry = False, exception: About = None,
) -> None:  # fmt: skip
    """Set values: they become user edits, which reads of the meter do not replace."""
    given = [value.strip() or None for value in values.split(",")] if values is not None else None
    _order(
        url, key, wait, user, action="edit", device=device, channel=channel, start=start, end=end, values=given, reading=reading,
        reason=reason, expected_version=expect, seconds=seconds, dry_run=dry_run, exception=exception,
    )  # fmt: skip


@app.command()
def estimate(
    device: Device, channel: Channel, start: Start, end: End,
    method: Annotated[str, typer.Option(help="An estimation rule, or outage-zero.")],
    reason: Reason = "", user: User = None, expect: Version = None, seconds: Seconds = None, key: Key = None, url: Url = None,
    wait: Wait = True, dry_run: Dry = False, exception: About = None,
) -> None:  # fmt: skip
    """Replace the intervals of a span by estimates of a method."""
    _order(
        url, key, wait, user, action="estimate", device=device, channel=channel, start=start, end=end, method=method, reason=reason,
        expected_version=expect, seconds=seconds, dry_run=dry_run, exception=exception,
    )  # fmt: skip


def _plain(action: str, about: str) -> None:
    def run(
        device: Device, channel: Channel, start: Start, end: End = None, reason: Reason = "", user: User = None, expect: Version = None,
        seconds: Seconds = None, key: Key = None, url: Url = None, wait: Wait = True, dry_run: Dry = False, exception: About = None,
    ) -> None:  # fmt: skip
        _order(
            url, key, wait, user, action=action, device=device, channel=channel, start=start, end=end, reason=reason,
            expected_version=expect, seconds=seconds, dry_run=dry_run, exception=exception,
        )  # fmt: skip

    app.command(name=action, help=about)(run)


_plain("accept", "Take what was received as it is: the exceptions of these days end as overridden.")
_plain("discard", "Remove what was received in a span; later reads may fill it again.")
_plain("force", "Make days final whatever was found, terminating exceptions and open ends included.")
_plain("re-vee", "Validate days anew, after settings or master data were put right; acceptances end.")


@app.command()
def label(
    verdict: Annotated[str, typer.Argument(help="confirmed: it was a fault; false-alarm: unusual, but right.")],
    exception: Annotated[str | None, typer.Option(help="Id of the anomaly exception; else name channel and day.")] = None,
    device: Annotated[str | None, typer.Option(help="Device of the channel.")] = None,
    channel: Annotated[str | None, typer.Option(help="The channel.")] = None,
    day: Annotated[str | None, typer.Option(help="Its local day, as 2026-03-29.")] = None,
    reason: Reason = "", user: User = None, url: Url = None,
) -> None:  # fmt: skip
    """Say whether an anomaly was a fault: the models of insights learn from it."""
    about = {"exception": exception, "device": device, "channel": channel, "day": day}
    body = {name: value for name, value in about.items() if value is not None}
    with HubClient(hub_url(url)) as hub:
        answer = hub.call("POST", "/v1/labels", json=body | {"verdict": verdict, "reason": reason, "user": user or getpass.getuser()})
    print(json.dumps(answer.json()))


@app.command()
def show(id: Annotated[str, typer.Argument(help="Id of a command.")], url: Url = None) -> None:
    """What became of a command: its entry of the audit."""
    with HubClient(hub_url(url)) as hub:
        answer = hub.call("GET", f"/v1/commands/{id}", accept=frozenset({404}))
    if answer.status_code == 404:
        raise UsageError(str(answer.json().get("detail")))
    print(json.dumps(answer.json()))


@app.command()
def bulk(
    action: Annotated[str, typer.Argument(help="accept, estimate, discard, force or re-vee.")],
    rule: Annotated[str, typer.Option(help="Rule whose open exceptions are meant.")],
    start: Start,
    end: Annotated[str, typer.Option("--to", help="ISO time with offset: exceptions that begin before it.")],
    devices: Annotated[list[str] | None, typer.Option("--devices", help="Pattern of devices, such as 'NMI61*'.")] = None,
    channels: Annotated[list[str] | None, typer.Option("--channels", help="Pattern of channels.")] = None,
    severity: Annotated[str | None, typer.Option(help="Only of this severity.")] = None,
    method: Annotated[str | None, typer.Option(help="estimate: an estimation rule, or outage-zero.")] = None,
    reason: Reason = "", user: User = None, url: Url = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
) -> None:  # fmt: skip
    """Order something done with every open exception of a selection; large orders wait for a second person."""
    select = {"rule": rule, "from": start, "to": end, "devices": devices or [], "channels": channels or [], "severity": severity}
    body = {"action": action, "select": select, "method": method, "reason": reason, "user": user or getpass.getuser(), "dry_run": dry_run}
    with HubClient(hub_url(url)) as hub:
        print(json.dumps(hub.call("POST", "/v1/commands/bulk", json=body).json()))


def _decision(word: str, about: str) -> None:
    def run(
        id: Annotated[str, typer.Argument(help="Id of the bulk order.")],
        count: Annotated[int | None, typer.Option(help="How many commands you agree to, where the selection has changed.")] = None,
        reason: Reason = "", user: User = None, url: Url = None,
    ) -> None:  # fmt: skip
        body = {"user": user or getpass.getuser(), "count": count, "reason": reason}
        with HubClient(hub_url(url)) as hub:
            print(json.dumps(hub.call("POST", f"/v1/bulk-orders/{id}/{word}", json=body).json()))

    app.command(name=word, help=about)(run)


_decision("approve", "Approve a bulk order that somebody else has asked for.")
_decision("reject", "Reject a bulk order.")


@app.command()
def orders(id: Annotated[str | None, typer.Argument(help="Id of a bulk order; else all that wait.")] = None, url: Url = None) -> None:
    """Bulk orders: one as it stands, or those that wait for a second person."""
    with HubClient(hub_url(url)) as hub:
        print(json.dumps(hub.call("GET", f"/v1/bulk-orders/{id}" if id else "/v1/bulk-orders").json()))
