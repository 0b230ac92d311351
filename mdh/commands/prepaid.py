"""``mdh prepaid``: prepaid accounts of a running hub: balances, top-ups, and why a balance is what it is."""

from __future__ import annotations

import getpass
import json as notation
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from mdh.errors import UsageError
from mdh.printing import table
from mdh.running import HubClient, hub_url

app = typer.Typer(help="Prepaid accounts: balances, top-ups, proofs.", no_args_is_help=True, add_completion=False)

Account = Annotated[str, typer.Argument(help="The account: a usage subscription.")]
Order = Annotated[str, typer.Argument(help="Id of the order, as `adjustments` lists it.")]
Url = Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
First = Annotated[str | None, typer.Option("--from", help="First local day, ISO date.")]
Last = Annotated[str | None, typer.Option("--to", help="Last local day, ISO date.")]
Most = Annotated[int, typer.Option("--max", help="Rows at most.", min=1, max=1_000_000)]
ACCEPT = frozenset({403, 404, 409, 413, 422})
PAGE = 1000


@app.command()
def accounts(
    state: Annotated[str | None, typer.Option(help="Only of this state: active, low, zero, disconnected …")] = None,
    most: Most = 100,
    url: Url = None,
    json: Json = False,
) -> None:
    """List accounts with balance, days left and state."""
    with HubClient(hub_url(url)) as hub:
        found = _pages(hub, "/v1/prepaid/accounts", {"state": state} if state else {}, most)
    if json:
        _print(found)
        return
    columns = ("account", "balance", "days left", "state", "debt", "tariff", "as of")
    rows = [
        (a["account"], f"{a['balance']} {a['currency']}", _text(a["days_left"]), _state(a), a["debt"], a["tariff"], a["as_of"])
        for a in found
    ]
    table(columns, rows, "no prepaid accounts")


def _state(account: dict[str, Any]) -> str:
    extra = [word for word in ("hold", "trouble") if account[word]]
    return " ".join([account["state"], *extra])


@app.command()
def show(account: Account, url: Url = None) -> None:
    """Show an account with its debts, as JSON."""
    with HubClient(hub_url(url)) as hub:
        found = _get(hub, _path(account))
        _print({**found, "debts": _get(hub, f"{_path(account)}/debts")["items"]})


@app.command()
def topup(
    account: Account,
    amount: Annotated[str, typer.Argument(help="Decimal, in the currency of the ledger.")],
    reference: Annotated[str, typer.Option(help="Number of the payment: the same one is credited once.")],
    channel: Annotated[str, typer.Option(help="How it was paid.")] = "cash",
    user: Annotated[str | None, typer.Option(help="Who does it; default: you.")] = None,
    url: Url = None,
) -> None:
    """Credit a payment. Repeat it under the same reference as often as you like."""
    body = {"amount": amount, "channel": channel, "external_ref": reference, "user": user or getpass.getuser()}
    with HubClient(hub_url(url)) as hub:
        answer = hub.call("POST", f"{_path(account)}/topups", json=body, accept=ACCEPT)
        found = _answered(answer)
    if found["status"] == "accepted":
        print(f"{account}: taken, not booked yet; request {found['id']}")
        return
    known = " (known from before)" if answer.status_code == 200 else ""
    print(f"{account}: {amount} credited{known}, balance {found['balance']}, {found['state']}")


@app.command()
def adjust(
    account: Account,
    amount: Annotated[str, typer.Argument(help="Decimal; write -- before a negative one.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the ledger.")],
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same one is posted once.")] = None,
    user: Annotated[str | None, typer.Option(help="Who does it; default: you.")] = None,
    url: Url = None,
) -> None:
    """Correct a balance by hand. A large correction waits until somebody else approves it."""
    body = {"amount": amount, "reason": reason, "user": user or getpass.getuser()}
    headers = {"Idempotency-Key": key or uuid.uuid4().hex}
    with HubClient(hub_url(url)) as hub:
        found = _answered(hub.call("POST", f"{_path(account)}/adjustments", json=body, headers=headers, accept=ACCEPT))
    if "decided_by" in found:
        print(f"{account}: {found['state']}, order {found['id']}")
    elif found["status"] == "accepted":
        print(f"{account}: taken, not booked yet; request {found['id']}")
    else:
        print(f"{account}: adjusted by {amount}, balance {found['balance']}, {found['state']}")


@app.command()
def adjustments(url: Url = None, json: Json = False) -> None:
    """List adjustments that wait for a second person."""
    with HubClient(hub_url(url)) as hub:
        found = _get(hub, "/v1/prepaid/adjustments")["items"]
    if json:
        _print(found)
        return
    rows = [(one["id"], one["account"], one["amount"], one["user"], one["reason"]) for one in found]
    table(("order", "account", "amount", "asked by", "reason"), rows, "no adjustment waits")


@app.command()
def approve(
    order: Order,
    reject: Annotated[bool, typer.Option("--reject", help="Do not let it happen.")] = False,
    user: Annotated[str | None, typer.Option(help="Who decides; default: you.")] = None,
    url: Url = None,
) -> None:
    """Approve an adjustment that somebody else has asked for."""
    word = "reject" if reject else "approve"
    body = {"user": user or getpass.getuser()}
    with HubClient(hub_url(url)) as hub:
        found = _answered(hub.call("POST", f"/v1/prepaid/adjustments/{order}/{word}", json=body, accept=ACCEPT))
    print(f"{found['account']}: {found['amount']} {found['state']} by {found['decided_by']}")


@app.command()
def ledger(account: Account, most: Most = 200, url: Url = None, json: Json = False) -> None:
    """List the postings of an account, oldest first."""
    with HubClient(hub_url(url)) as hub:
        found = _pages(hub, f"{_path(account)}/ledger", {}, most)
    if json:
        _print(found)
        return
    rows = [
        (str(p["sequence"]), p["at"], p["kind"], p["component"], p["day"], p["change"], p["balance"], p["reference"] or p["reason"])
        for p in found
    ]
    table(("no", "at", "kind", "component", "day", "change", "balance", "reference or reason"), rows, "no postings")


@app.command()
def replay(
    account: Annotated[str, typer.Option(help="The account: a usage subscription.")],
    most: Most = 1_000_000,
    url: Url = None,
    json: Json = False,
) -> None:
    """Explain a balance posting by posting, with the reads behind each; exits with 1 where a posting does not follow."""
    steps: list[dict[str, Any]] = []
    with HubClient(hub_url(url)) as hub:
        after: int | None = 0
        while after is not None and len(steps) < most:
            page = _get(hub, f"{_path(account)}/replay", after=after, limit=min(PAGE, most - len(steps)))
            steps, after = steps + page["items"], page["next"]
    if json:
        _print(steps)
    else:
        for step in steps:
            _explain(step)
        currency = page["account"]["currency"]
        print(f"{account}: {len(steps)} postings, balance {steps[-1]['balance'] if steps else '0'} {currency}")
    wrong = [step["sequence"] for step in steps if not step["sound"]]
    if wrong:
        print(f"{len(wrong)} postings do not follow from those before, the first is number {wrong[0]}", file=sys.stderr)
        raise typer.Exit(1)


def _explain(step: dict[str, Any]) -> None:
    from mdh.running import printable

    what = f"{step['kind']} {step['component']}".strip()
    open_ = ", provisional" if step["provisional"] else ""
    print(f"{step['sequence']:>5}  {step['at']}  {step['change']:>12}  = {step['balance']:>12}  {what}{open_}")
    about = [text for text in (step["reference"], step["reason"], step["user"]) if text]
    if step["request"]:
        print(printable(f"         asked for: {step['request']['action']}{' · ' if about else ''}{' · '.join(about)}"))
    elif about:
        print(printable(f"         {' · '.join(about)}"))
    if step["day"]:
        print(f"         for {step['day']}, cause {step['cause']}")
    for read in step["reads"]:
        marks = ", ".join(f"{count} {name}" for name, count in sorted(read["conditions"].items()))
        print(printable(
            f"         {read['kind']} {read['device']} {read['channel']}: {read['quantity'] or '-'} {read['unit']} ({marks}),"
            f" version {read['version']}"
        ))  # fmt: skip


@app.command("try")
def attempt(
    tariff: Annotated[Path, typer.Option(help="YAML or JSON of one tariff, as in topology.yaml; - for stdin.")],
    account: Annotated[str, typer.Option(help="Whose usage.")],
    first: Annotated[str, typer.Option("--from", help="First local day, ISO date.")],
    last: Annotated[str, typer.Option("--to", help="Last local day, ISO date.")],
    url: Url = None,
    json: Json = False,
) -> None:
    """Price past usage by another tariff, month by month, beside the account's own."""
    import yaml

    try:
        text = sys.stdin.read() if str(tariff) == "-" else tariff.read_text()
        given = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{tariff}: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise UsageError(f"{tariff}: must hold one tariff: id and versions")
    given = notation.loads(notation.dumps(given, default=str))
    with HubClient(hub_url(url)) as hub:
        body = {"tariff": given, "first": first, "last": last}
        found = _answered(hub.call("POST", f"{_path(account)}/try", json=body, accept=ACCEPT))
    if json:
        _print(found)
        return
    rows = [
        (m["from"], m["to"], f"{m.get('quantity', '0')} {m.get('unit', '')}", m["asked"]["total"], m.get("own", {}).get("total", "-"))
        for m in found["months"]
    ]
    rows.append(("together", "", "", found["asked"], found["own"] or "-"))
    table(("from", "to", "consumption", found["tariff"], f"{found['own_tariff']} (own)"), rows, "no months")


@app.command()
def verify(account: Annotated[str | None, typer.Option(help="Only this one.")] = None, url: Url = None, json: Json = False) -> None:
    """Prove the ledger anew from the store: chain of hashes, double entry, balances; exits with 1 where it does not hold."""
    with HubClient(hub_url(url)) as hub:
        found = _get(hub, "/v1/prepaid/verify", **({"account": account} if account else {}))
    if json:
        _print(found)
    else:
        state = "all holds" if found["holds"] else "IT DOES NOT HOLD"
        print(
            f"{found['accounts']} accounts, {found['postings']} postings, {found['moved']} {found['currency']} moved, balances together"
            f" {found['customers']} {found['currency']}: {state}"
        )
        for flaw in found["flaws"]:
            print(flaw)
    if not found["holds"]:
        raise typer.Exit(1)


def _path(account: str) -> str:
    return f"/v1/prepaid/accounts/{quote(account, safe='')}"


def _get(hub: HubClient, path: str, **params: Any) -> Any:
    return _answered(hub.call("GET", path, params=params, accept=ACCEPT))


def _pages(hub: HubClient, path: str, params: dict[str, Any], most: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(found) < most:
        page = _get(hub, path, limit=min(PAGE, most - len(found)), **params, **({"cursor": cursor} if cursor else {}))
        found, cursor = found + page["items"], page["next"]
        if cursor is None:
            break
    return found


def _answered(answer: Any) -> Any:
    body = answer.json()
    if not answer.is_success:
        raise UsageError(str(body.get("detail") or body.get("title")))
    return body


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _print(value: Any) -> None:
    print(notation.dumps(value, indent=2, ensure_ascii=False))
