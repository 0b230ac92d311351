"""A whole login at an identity provider, over HTTP and through the hub's doors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from connectors.rights.oidc import CALLBACK, Provider
from connectors.rights.service import COOKIE
from schemas.topology.rights import ClaimRule, Grant, OidcSettings
from tests.rights.idp import IdentityProvider, running
from tests.rights.kit import World

ANNA = {"preferred_username": "anna", "name": "Anna A.", "groups": ["clerks"]}


@pytest.fixture
def idp(monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityProvider]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with running(IdentityProvider("mdh", "s3cret", f"http://hub{CALLBACK}", person=ANNA)) as found:
        yield found


@pytest.fixture
def world(worlds: Callable[..., World], idp: IdentityProvider) -> World:
    rule = ClaimRule(claim="groups", value="clerks", grant=Grant(role="clerk"))
    settings = OidcSettings(issuer=idp.issuer, client_id="mdh", public_url="http://hub", roles=[rule])
    made = worlds(provider=Provider(settings, "s3cret"))
    made.user("root", Grant(role="admin"))
    return made


def through(client: TestClient, following: str = "/v1/exceptions") -> str:
    """From the hub to the provider; the address that the provider sends the browser back to."""
    away = client.get("/v1/session/oidc", params={"next": following})
    assert away.status_code == 303
    back = httpx.get(away.headers["location"], trust_env=False)
    assert back.status_code == 302
    place = urlsplit(back.headers["location"])
    assert place.path == CALLBACK
    return f"{place.path}?{place.query}"


def test_somebody_of_the_provider_comes_in_with_her_roles(world: World) -> None:
    client = world.browser()
    assert client.get("/v1/session").status_code == 401
    assert client.get("/v1/session").json()["login"] == ["password", "oidc"]
    back = through(client)
    answer = client.get(back)

    assert (answer.status_code, answer.headers["location"]) == (303, "/v1/exceptions")
    me = client.get("/v1/session").json()
    assert (me["name"], me["full_name"], me["via"], [one["role"] for one in me["roles"]]) == ("anna@idp", "Anna A.", "session", ["clerk"])
    assert client.get("/v1/exceptions").status_code == 200
    assert client.get("/v1/users").status_code == 403
    assert client.delete("/v1/session", headers={"X-CSRF-Token": me["csrf"]}).status_code == 204
    assert client.get("/v1/exceptions").status_code == 401
    assert client.get(back).status_code == 403, "the same answer of the provider counts once"


def test_another_browser_cannot_use_the_answer(world: World) -> None:
    back = through(world.browser())
    other = world.browser()
    assert other.get(back).status_code == 403
    through(other)
    assert other.get(back).status_code == 403, "it has begun a login of its own, with another state"
    assert COOKIE not in other.cookies


def test_refusals_of_the_provider_and_people_without_a_role_stay_out(world: World, idp: IdentityProvider) -> None:
    idp.refuse = "access_denied"
    client = world.browser()
    refused = client.get(through(client))
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    idp.refuse, idp.person = "", {**ANNA, "groups": ["guests"]}
    assert client.get(through(client)).status_code == 403
    assert "access_denied" not in refused.text


def test_a_wrong_client_secret_and_a_code_of_nobody_are_refused(worlds: Callable[..., World], world: World, idp: IdentityProvider) -> None:
    client = world.browser()
    back = through(client)
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert client.get(f"{CALLBACK}?state={state}&code=made-up").status_code == 403
    idp.secret = "changed"
    client = world.browser()
    assert client.get(through(client)).status_code == 403


def test_somebody_of_the_provider_can_be_blocked_here(world: World) -> None:
    root = world.token("root")
    client = world.browser()
    assert client.get(through(client)).status_code == 303
    assert client.get("/v1/exceptions").status_code == 200
    admin = world.browser()
    assert admin.post("/v1/users", json={"name": "anna@idp"}, headers=root).status_code == 201
    assert admin.post("/v1/users/anna@idp/disable", json={"reason": "left"}, headers=root).status_code == 200
    assert client.get("/v1/exceptions").status_code == 401
    again = world.browser()
    assert again.get(through(again)).status_code == 403


def test_next_stays_here_and_a_hub_without_provider_says_so(world: World, worlds: Callable[..., World]) -> None:
    client = world.browser()
    answer = client.get(through(client, "https://evil.example/"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert worlds().browser().get("/v1/session/oidc").status_code == 404
