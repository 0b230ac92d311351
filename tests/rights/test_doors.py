"""Login, sessions, tokens and roles through the HTTP interface: what works, and the tricks that must not."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest

from connectors.rights.service import COOKIE
from schemas.topology.rights import Grant
from tests.patience import eventually
from tests.rights.kit import PASSWORD, World


def test_nobody_gets_through_but_to_open_doors(world: World) -> None:
    client = world.browser()

    assert client.get("/health/live").status_code == 200
    assert client.get("/docs").status_code == 200
    for method, path in (("GET", "/v1/exceptions"), ("POST", "/v1/commands"), ("GET", "/v1/users"), ("GET", "/v1/there-is-no-such-door")):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert world.reader.asked == []


def test_login_gives_a_session_that_logout_ends_on_all_hubs(worlds: Callable[..., World]) -> None:
    one, two = worlds(), worlds()
    one.user("anna", Grant(role="clerk"))
    client = one.logged_in("anna")
    other = two.browser()
    other.cookies.set(COOKIE, client.cookies[COOKIE])

    assert other.get("/v1/session").json()["name"] == "anna"  # although the hub may learn of session and user only now
    assert "todos.work" in client.get("/v1/session").json()["permissions"]
    assert client.delete("/v1/session").status_code == 204
    assert eventually(lambda: other.get("/v1/exceptions").status_code == 401)


@pytest.mark.parametrize("topic", ["sessions", "accounts"])
def test_a_hub_waits_for_what_another_made_a_moment_ago(worlds: Callable[..., World], topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = worlds(), worlds()
    follower = getattr(two, topic)
    taken = follower._take

    def late(value: bytes, offset: int) -> None:
        time.sleep(0.4)
        taken(value, offset)

    monkeypatch.setattr(follower, "_take", late)
    one.user("anna", Grant(role="clerk"))
    client, other, bearer = one.logged_in("anna"), two.browser(), one.token("anna")
    other.cookies.set(COOKIE, client.cookies[COOKIE])

    assert other.get("/v1/exceptions").status_code == 200
    assert two.browser().get("/v1/exceptions", headers=bearer).status_code == 200


def test_cookies_are_not_for_scripts_and_a_login_never_keeps_a_session_id(world: World) -> None:
    client = world.browser()
    client.cookies.set(COOKIE, "planted")
    answer = client.post("/v1/session", json={"user": "anna", "password": PASSWORD})
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith(COOKIE))

    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert "planted" not in cookie


def test_a_change_by_cookie_needs_the_token_and_the_own_site(world: World) -> None:
    client = world.logged_in("anna")
    proof = client.headers.pop("X-CSRF-Token")

    assert client.post("/v1/tokens", json={}).json()["type"].endswith(":forged")
    assert client.post("/v1/tokens", json={}, headers={"X-CSRF-Token": "0" * 64}).status_code == 403
    abroad = {"X-CSRF-Token": proof, "Origin": "https://evil.example"}
    assert client.post("/v1/tokens", json={}, headers=abroad).status_code == 403
    assert client.post("/v1/tokens", json={}, headers={"X-CSRF-Token": proof, "Origin": "http://hub"}).status_code == 201


def test_wrong_names_and_wrong_passwords_look_the_same_and_lock_the_account(world: World) -> None:
    client = world.browser()
    wrong = client.post("/v1/session", json={"user": "anna", "password": "no no no no no"})
    nobody = client.post("/v1/session", json={"user": "nemo", "password": "no no no no no"})
    assert (wrong.status_code, wrong.json()) == (nobody.status_code, nobody.json())

    for _ in range(4):
        client.post("/v1/session", json={"user": "anna", "password": "no no no no no"})
    locked = client.post("/v1/session", json={"user": "anna", "password": PASSWORD})
    assert locked.status_code == 429
    assert 0 < int(locked.headers["retry-after"]) <= 31
    world.clock.ahead += 61
    assert client.post("/v1/session", json={"user": "anna", "password": PASSWORD}).status_code == 200


def test_one_address_may_not_try_for_ever(worlds: Callable[..., World]) -> None:
    world = worlds(login={"per_address": 3})
    client = world.browser()
    found = [client.post("/v1/session", json={"user": f"u{n}", "password": "x"}).status_code for n in range(5)]

    assert found == [401, 401, 401, 429, 429]


def test_roles_decide_and_refusals_are_audited(world: World) -> None:
    anna = world.token("anna")
    client = world.browser()

    assert client.get("/v1/exceptions", headers=anna).status_code == 200
    refused = client.get("/v1/users", headers=anna)
    assert (refused.status_code, refused.json()["permission"]) == (403, "users.read")
    assert client.post("/v1/sql", content="SELECT 1", headers=anna).status_code == 403
    assert client.get("/v1/users", headers=world.token("root")).status_code == 200


def test_scopes_bound_a_token_and_it_makes_none_that_may_more(world: World) -> None:
    client, bounded = world.browser(), world.token("root", "results.read", "tokens.own")

    assert client.get("/v1/exceptions", headers=bounded).status_code == 200
    assert client.get("/v1/users", headers=bounded).status_code == 403
    assert client.post("/v1/tokens", json={"scopes": ["users.write"]}, headers=bounded).status_code == 403
    made = client.post("/v1/tokens", json={}, headers=bounded).json()
    assert made["scopes"] == ["results.read", "tokens.own"]
    assert client.post("/v1/tokens", json={"owner": "anna"}, headers=world.token("anna")).status_code == 201
    assert client.post("/v1/tokens", json={"owner": "root"}, headers=world.token("anna")).status_code == 403


def test_tokens_expire_are_revoked_and_die_with_their_owner(world: World) -> None:
    client, anna, root = world.browser(), world.token("anna"), world.token("root", days=100)
    short = world.token("anna", days=1)
    world.clock.ahead = 2 * 86_400
    assert client.get("/v1/exceptions", headers=short).status_code == 401
    world.clock.ahead = 0

    id = anna["Authorization"].split("_")[1]
    assert client.delete(f"/v1/tokens/{id}", headers=world.token("anna")).json()["status"] == "ended"
    assert client.get("/v1/exceptions", headers=anna).status_code == 401
    assert client.post("/v1/users/anna/disable", headers=root).status_code == 200
    assert client.get("/v1/exceptions", headers=short).status_code == 401
    assert client.post("/v1/session", json={"user": "anna", "password": PASSWORD}).status_code == 401


def test_made_up_tokens_count_for_nothing(world: World) -> None:
    client = world.browser()
    none = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, {"sub": "root"}))
    good = world.token("root")["Authorization"]
    for value in (f"Bearer {none}.", "Bearer ", "Bearer mdh_x_y", "Basic !!!", "Digest x", f"{good}x", good.rsplit("_", 1)[0] + "_"):
        assert client.get("/v1/users", headers={"Authorization": value}).status_code == 401, value


def test_a_password_change_ends_sessions_and_one_administrator_stays(world: World) -> None:
    anna, root = world.logged_in("anna"), world.token("root")
    client = world.browser()
    fresh = {"password": "a very new phrase 7", "old_password": "wrong"}
    assert anna.put("/v1/users/anna/password", json=fresh).status_code == 403
    assert anna.put("/v1/users/root/password", json=fresh).status_code == 403
    assert anna.put("/v1/users/anna/password", json={**fresh, "old_password": PASSWORD}).status_code == 200
    assert anna.get("/v1/exceptions").status_code == 401
    assert client.post("/v1/users/root/disable", headers=root).status_code == 409
    assert client.request("DELETE", "/v1/users/root/grants", json={"grant": {"role": "admin"}}, headers=root).status_code == 409


def test_rights_in_an_area_show_and_reach_nothing_outside(world: World) -> None:
    world.user("nora", Grant(role="clerk", region="north*", commodity="gas"))
    nora, client = world.token("nora"), world.browser()
    world.reader.within = {"meter-n"}

    assert client.get("/v1/exceptions", headers=nora).status_code == 200
    sql, parameters = world.reader.asked[-1]
    assert "device IN (" in sql
    assert {"^north.*$", "^gas$"} <= set(parameters.values())
    assert client.get("/v1/intervals?device=meter-n", headers=nora).status_code == 200
    outside, unknown = (client.get(f"/v1/intervals?device={name}", headers=nora) for name in ("meter-s", "no-such-meter"))
    assert outside.status_code == unknown.status_code == 403
    assert outside.json() == unknown.json()
    order = {"action": "accept", "device": "meter-s", "channel": "1", "start": "2026-01-01T00:00:00Z"}
    assert client.post("/v1/commands", json=order, headers=nora).status_code == 403
    assert client.get("/v1/commands/any", headers=nora).status_code == 403  # cannot be placed


def test_the_first_link_makes_one_administrator_once(worlds: Callable[..., World]) -> None:
    world = worlds()
    file = world.folder / "run" / "first-admin"
    assert eventually(file.exists)
    assert file.stat().st_mode & 0o077 == 0
    code = file.read_text().partition("code=")[2]
    client = world.browser()

    assert code in client.get(f"/v1/session/first?code={code}").text
    assert client.post("/v1/session/first", json={"code": "x", "user": "root", "password": PASSWORD}).status_code == 401
    assert client.post("/v1/session/first", data={"code": code, "user": "root", "password": PASSWORD}).status_code == 303
    assert client.get("/v1/users").json()["items"][0]["name"] == "root"
    assert world.browser().post("/v1/session/first", json={"code": code, "user": "eve", "password": PASSWORD}).status_code == 401


def test_a_reset_ends_the_password_and_its_link_sets_another_once(world: World) -> None:
    anna, root, client = world.logged_in("anna"), world.token("root"), world.browser()
    assert client.post("/v1/users/anna/reset", headers=world.token("anna")).status_code == 403
    made = client.post("/v1/users/anna/reset", json={"reason": "forgotten"}, headers=root).json()
    assert (made["name"], made["password"]) == ("anna", False)
    assert anna.get("/v1/exceptions").status_code == 401
    assert client.post("/v1/session", json={"user": "anna", "password": PASSWORD}).status_code == 401
    code, fresh = made["link"].partition("code=")[2], "another good phrase 3"

    assert code in client.get(made["link"]).text
    assert client.post("/v1/session/first", json={"code": code, "user": "eve", "password": fresh}).status_code == 401
    assert client.post("/v1/session/reset", json={"code": "x" * 43, "password": fresh}).status_code == 401
    assert client.post("/v1/session/reset", json={"code": code, "password": "short"}).status_code == 422
    assert client.post("/v1/session/reset", data={"code": code, "password": fresh}).status_code == 303
    assert client.get("/v1/session").json()["name"] == "anna"
    assert world.browser().post("/v1/session/reset", json={"code": code, "password": fresh}).status_code == 401
    assert world.browser().post("/v1/session", json={"user": "anna", "password": fresh}).status_code == 200
    assert client.post("/v1/users/machine/reset", headers=root).status_code == 404


def test_a_user_through_its_whole_life(world: World) -> None:
    root, client = world.token("root"), world.browser()
    body = {"name": "nina", "full_name": "Nina N.", "password": PASSWORD, "grants": [{"role": "clerk", "region": "north*"}]}
    assert client.post("/v1/users", json=body, headers=root).status_code == 201
    assert client.post("/v1/users", json=body, headers=root).status_code == 409
    assert client.patch("/v1/users/nina", json={"full_name": "Nina Nord"}, headers=root).json()["full_name"] == "Nina Nord"
    more = {"grant": {"role": "auditor"}, "reason": "deputy"}
    assert len(client.post("/v1/users/nina/grants", json=more, headers=root).json()["grants"]) == 2
    assert client.post("/v1/users/nina/grants", json={"grant": {"role": "king"}}, headers=root).status_code == 422
    assert len(client.request("DELETE", "/v1/users/nina/grants", json=more, headers=root).json()["grants"]) == 1
    assert client.post("/v1/users/nina/disable", json={"reason": "left"}, headers=root).json()["status"] == "disabled"
    assert client.post("/v1/users/nina/reset", headers=root).status_code == 422
    assert client.post("/v1/session", json={"user": "nina", "password": PASSWORD}).status_code == 401
    assert client.post("/v1/users/nina/enable", headers=root).json()["status"] == "active"
    assert client.post("/v1/session", json={"user": "nina", "password": PASSWORD}).status_code == 200
    assert [one["name"] for one in client.get("/v1/users", headers=root).json()["items"]] == ["anna", "nina", "root"]


def test_an_open_hub_asks_nobody_but_other_sites_may_not_use_its_browser(worlds: Callable[..., World]) -> None:
    client = worlds("open").browser()

    assert client.get("/v1/exceptions").status_code == 200
    assert client.get("/v1/session").json()["name"] == "local"
    assert client.post("/v1/settle", json={"ids": []}, headers={"Origin": "https://evil.example"}).status_code == 403
