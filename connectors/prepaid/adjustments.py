"""Corrections of balances by hand: small ones at once, larger ones when a second person has agreed."""

from __future__ import annotations

import uuid
from typing import Any, Final

import orjson

from connectors.head_end.listing import readable
from connectors.head_end.orders import Order, OrderBook
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import RefusedError, check_label
from connectors.prepaid.service import PrepaidService, conflict
from connectors.rights.principal import acting, current, permission_asked, vouched
from connectors.rights.scope import all_within, require_within
from schemas.identity import identity

KIND: Final = "prepaid"
ACTION: Final = "adjustment"


class Adjustments:
    """Adjustments over the engine and the orders that wait. Everything blocks: call it from threads."""

    def __init__(self, service: PrepaidService, orders: OrderBook) -> None:
        self.service, self.orders = service, orders
        self.alone = service.settings.currency.whole(service.settings.four_eyes_above)

    def ask(self, account: str, amount: str, key: str | None, *, reason: str, user: str, approver: str) -> tuple[int, dict[str, Any]]:
        """Adjusts at once, or leaves it to a second person: (HTTP status, answer). Raises Problem 404, 409, 422, 503.

        ``approver`` counts where those who ask are trusted to have asked somebody.
        """
        whole = self.service.amount(amount, signed=True) or 0
        if abs(whole) <= self.alone or vouched(approver):
            return self.service.submit(account, ACTION, key, amount=whole, reason=reason, user=user, approver=approver)
        user = acting(user)
        _label("user", user, required=True)
        _label("reason", reason, required=True)
        self.service.account(account)
        id = identity("prepaid-order", account, key or uuid.uuid4().hex)
        request = orjson.dumps({"account": account, "amount": whole, "reason": reason}, option=orjson.OPT_SORT_KEYS).decode()
        known = self._known(id)
        if known is not None:
            if known.request != request or known.user != user:
                raise conflict()
            return 202 if known.state == "waiting" else 200, self.shown(known)
        detail = f"{self.service.settings.currency.text(whole)} to {account}"
        self.orders.request(id, ACTION, user, 1, request, reason=reason, detail=detail)
        return 202, self.shown(Order(id, request, user, 1, "waiting", ""))

    def decide(self, id: str, user: str, *, approve: bool, reason: str = "") -> dict[str, Any]:
        """Approves or rejects what somebody else asked for. Raises Problem 403, 404, 409, 422, 503."""
        user = acting(user)
        _label("user", user, required=True)
        with self.orders.decision(id, user, approve=approve) as order:
            asked = orjson.loads(order.request)
            require_within(self.service.reader, ("account", asked["account"]))
            if not approve:
                self.orders.note(id, ACTION, "rejected", user, reason or "rejected", reason=asked["reason"])
                return self.shown(order, state="rejected", decided_by=user)
            outcome = self.service.approved(order.id, asked, order.user, user)
            detail = f"{self.service.settings.currency.text(asked['amount'])} to {asked['account']}"
            self.orders.note(id, ACTION, "approved", user, detail, reason=asked["reason"])
            return self.shown(order, state="approved", decided_by=user, outcome=readable(outcome))

    def find(self, id: str) -> dict[str, Any]:
        """One as it stands. Raises Problem 403, 404."""
        order = self.orders.find(id)
        require_within(self.service.reader, ("account", orjson.loads(order.request)["account"]))
        return self.shown(order)

    def waiting(self) -> list[dict[str, Any]]:
        """Those that wait for a second person, the oldest first; of the area of the one who asks."""
        found = [self.shown(self.orders.find(id)) for id in self.orders.waiting()]
        asked = permission_asked()
        bounds = current().bounds(asked) if asked else None
        if bounds is None:
            return found
        return [one for one in found if all_within(self.service.reader, [("account", one["account"])], bounds)]

    def shown(self, order: Order, **more: Any) -> dict[str, Any]:
        """An order as it is told."""
        asked = orjson.loads(order.request)
        return {
            "id": order.id, "state": order.state, "account": asked["account"], "reason": asked["reason"], "user": order.user,
            "amount": self.service.settings.currency.text(asked["amount"]), "decided_by": order.decided_by, **more,
        }  # fmt: skip

    def _known(self, id: str) -> Order | None:
        try:
            return self.orders.find(id)
        except ProblemError as error:
            if error.status != 404:
                raise
            return None


def _label(name: str, text: str, *, required: bool = False) -> None:
    try:
        check_label(name, text, required=required)
    except RefusedError as error:
        raise ProblemError(422, "not-valid", str(error)) from None
