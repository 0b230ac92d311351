"""Webhooks end to end: what is wanted arrives, signed, in order, whatever the receiver does."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import orjson
import pytest

from connectors.subscribers import signing
from connectors.subscribers.circuit import OPENS_AFTER
from connectors.subscribers.objects import sample_block
from connectors.subscribers.parcel import RefusedError
from connectors.subscribers.service import GoneError
from schemas.block import FinalBlock
from schemas.topology.subscribers import Filter
from tests.subscribers.kit import SECRET, Bench, Request, determinant, eventually, exception, receiver


def test_a_webhook_gets_what_it_wants_signed_and_once(bench: Bench) -> None:
    with receiver() as to:
        bench.webhook("billing", to, filter={"account": ["a-*"], "unit": ["kWh"]})
        bench.write("billing.determinants", "Determinant", [determinant(n, f"{'ab'[n % 2]}-{n}") for n in range(40)])
        eventually(lambda: len(to.ids) == 20)
        request = to.taken[0]
        assert signing.verify([SECRET.encode()], request.headers, request.body, int(time.time()))
        assert not signing.verify([b"x" * 32], request.headers, request.body, int(time.time()))
        assert not signing.verify([SECRET.encode()], request.headers, request.body + b" ", int(time.time()))
        assert not signing.verify([SECRET.encode()], request.headers, request.body, int(time.time()) + 301), "an old one is refused"
        assert request.headers["idempotency-key"] == request.id
        body = orjson.loads(request.body)
        assert (body["type"], body["schema"], body["subscriber"], body["id"]) == ("determinants", "Determinant.v1", "billing", request.id)
        assert body["data"][0]["quantity"] == "12.5"
        assert body["data"][0]["period_start"] == "2026-01-01T00:00:00Z"
        eventually(lambda: sum(one["status"] == "sent" for one in bench.journal("billing")) == 20)
        bench.settled("billing")
        assert len(to.ids) == len(set(to.ids)) == 20


def test_several_objects_and_exceptions_by_rule_and_severity(bench: Bench) -> None:
    with receiver() as to:
        bench.webhook("desk", to, ("exceptions", "audit"), filter={"rule": ["interval-spike"], "severity": ["issue", "terminate"]})
        bench.write("vee.exceptions", "VeeException", [exception(n, severity="info" if n % 2 else "issue") for n in range(10)], "device")
        bench.write("vee.exceptions", "VeeException", [exception(99, rule="high-low")], "device")
        eventually(lambda: len(to.ids) == 5)
        assert {request.headers["webhook-id"] for request in to.taken} == {request.id for request in to.taken}
        bench.settled("desk")
        assert len(to.ids) == 5


def test_a_later_version_is_never_overtaken_by_a_retry_of_an_earlier_one(bench: Bench) -> None:
    """Each account's first determinants fail now and then; what was taken keeps the order of versions."""
    failures: dict[str, int] = {}
    lock = threading.Lock()

    def answer(request: Request) -> int:
        with lock:
            failures[request.id] = failures.get(request.id, 0) + 1
            first_time = failures[request.id] == 1
        return 500 if first_time and int(request.data[0]["version"]) % 2 else 204

    with receiver(answer) as to:
        bench.webhook("billing", to, parallel=8)
        records = [determinant(account, f"a-{account}", version) for version in range(1, 5) for account in range(4)]
        bench.write("billing.determinants", "Determinant", records)
        eventually(lambda: len(to.ids) == 16)
        for account in range(4):
            taken = [item["version"] for request in to.taken for item in request.data if item["account"] == f"a-{account}"]
            assert taken == [1, 2, 3, 4]
        assert len(to.requests) > 16


def test_a_poisonous_delivery_is_given_up_with_its_reason_and_the_rest_goes_on(bench: Bench) -> None:
    def answer(request: Request) -> object:
        account = request.data[0]["account"]
        return (422, {}, b"no such account") if account == "a-bad" else 500 if account == "a-worse" else 204

    with receiver(answer) as to:
        bench.webhook("billing", to)
        bench.write(
            "billing.determinants", "Determinant", [determinant(n, name) for n, name in enumerate(["a-bad", "a-worse", "a-1", "a-2"])]
        )
        eventually(lambda: len(to.ids) == 2)
        eventually(lambda: sum(one["status"] == "dead" for one in bench.journal("billing")) == 2)
        dead = {one["key"]: one for one in bench.journal("billing") if one["status"] == "dead"}
        assert dead["a-bad"]["reason"] == "answered 422: no such account"
        assert (dead["a-bad"]["attempt"], dead["a-worse"]["attempt"]) == (2, 3)
        assert dead["a-worse"]["code"] == 500
        assert len({one["id"] for one in bench.journal("billing") if one["key"] == "a-bad"}) == 1
        eventually(lambda: bench.position("billing") == 5)  # one record made the topic


def test_a_receiver_that_was_away_gets_everything_in_order(bench: Bench) -> None:
    away = threading.Event()
    away.set()
    with receiver(lambda _: 503 if away.is_set() else 200) as to:
        since = time.monotonic()
        bench.webhook("billing", to, parallel=2)
        bench.write("billing.determinants", "Determinant", [determinant(n, "a-1") for n in range(30)])
        eventually(lambda: bench.service.state(bench.registry.get("billing")).get("circuit") == "open")
        assert bench.position("billing") <= 1, "nothing moves past what was not taken"
        asked = len(to.requests)
        left_alone = OPENS_AFTER + 2 * (time.monotonic() - since)  # a probe now and then, half a second apart at least
        assert asked <= left_alone
        away.clear()
        eventually(lambda: len(to.ids) == 30)
        assert to.ids == [f"d{n:05}-1" for n in range(30)]
        eventually(lambda: bench.service.state(bench.registry.get("billing"))["circuit"] == "closed")


def test_patience_that_has_run_out_suspends_the_subscriber_and_loses_nothing(bench: Bench) -> None:
    open_ = threading.Event()
    with receiver(lambda _: 200 if open_.is_set() else 403) as to:
        channel = {"kind": "webhook", "url": to.url, "secrets": ["key"]}
        bench.subscribe("billing", ["determinants"], channel, retry={"first": "1s", "most": "1s", "patience": "1s"})
        bench.write("billing.determinants", "Determinant", [determinant(n) for n in range(5)])
        eventually(lambda: bench.registry.get("billing").status == "suspended")
        entry = bench.registry.get("billing")
        assert (entry.actor, entry.reason) == ("delivery", "answered 403")
        open_.set()
        bench.registry.set_status(entry, "resume", "active", actor="test")
        eventually(lambda: len(to.ids) == 5)


def test_redirects_are_not_followed(bench: Bench) -> None:
    with receiver() as other, receiver(lambda _: (307, {"Location": other.url}, b"")) as to:
        bench.webhook("billing", to)
        bench.write("billing.determinants", "Determinant", [determinant(1)])
        eventually(lambda: len(to.requests) >= 2)
        assert not other.requests
        eventually(lambda: any("redirects are not followed" in one["reason"] for one in bench.journal("billing")))


def test_secrets_can_be_changed_without_a_missed_signature(bench: Bench) -> None:
    folder = bench.folder / "secrets" / "subscribers"
    folder.mkdir(parents=True)
    (folder / "old").write_text("o" * 30 + "\n")
    with receiver() as to:
        bench.webhook("billing", to, secrets=["new", "old"])
        bench.write("billing.determinants", "Determinant", [determinant(1)])
        eventually(lambda: any("no secret new" in one["reason"] for one in bench.journal("billing")))
        assert not to.requests, "nothing leaves unsigned"
        (folder / "new").write_text("n" * 30)
        eventually(lambda: to.taken)
        request, now = to.taken[0], int(time.time())
        for key in (b"o" * 30, b"n" * 30):
            assert signing.verify([key], request.headers, request.body, now)
        assert len(request.headers["webhook-key-id"].split()) == 2


def test_one_record_of_many_items_goes_in_requests_of_bounded_size(bench: Bench) -> None:
    block = FinalBlock.join([sample_block()] * 25)
    object.__setattr__(block, "version", np.arange(25))
    with receiver() as to:
        bench.webhook("portal", to, ("final-intervals", "final-registers"), records=10)
        bench.block(block)
        eventually(lambda: len(to.ids) == 25)
        assert [len(request.data) for request in to.taken] == [10, 10, 5]
        assert len(set(to.ids)) == 25


def test_bytes_that_are_no_record_are_passed_over(bench: Bench) -> None:
    with receiver() as to:
        bench.webhook("billing", to)
        bench.raw("billing.determinants", b"\0\0\0\0\x09garbage")
        bench.raw("billing.determinants", b"not framed")
        bench.write("billing.determinants", "Determinant", [determinant(1)])
        eventually(lambda: len(to.ids) == 1)


def test_a_delivery_that_was_given_up_can_be_sent_again_under_its_id(bench: Bench) -> None:
    known = threading.Event()
    with receiver(lambda request: 204 if known.is_set() or request.data[0]["account"] != "a-bad" else 422) as to:
        bench.webhook("billing", to, records=1)
        bench.write("billing.determinants", "Determinant", [determinant(n, name) for n, name in enumerate(["a-bad", "a-1", "a-2"])])
        [dead] = eventually(lambda: [one for one in bench.journal("billing") if one["status"] == "dead"])
        entry = bench.registry.get("billing")
        with pytest.raises(RefusedError):
            bench.service.tools.again(entry, dead)
        known.set()
        assert bench.service.tools.again(entry, dead).code == 204
        request = to.taken[-1]
        assert (request.id, request.ids) == (dead["id"], ["d00000-1"])
        eventually(lambda: bench.journal("billing")[-1]["status"] == "sent")
        last = bench.journal("billing")[-1]
        assert (last["id"], last["attempt"] > dead["attempt"], last["since"]) == (dead["id"], True, dead["since"])
        with pytest.raises(GoneError, match="filter"):
            bench.service.tools.again(replace(entry, spec=entry.spec.model_copy(update={"filter": Filter(account=["a-1"])})), dead)
