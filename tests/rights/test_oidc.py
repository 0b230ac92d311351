"""Login at an identity provider: a fake one in this process, and id tokens that must not count."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from connectors.rights.oidc import Provider, ProviderError, inside
from schemas.topology.rights import ClaimRule, Grant, OidcSettings

ISSUER = "https://idp.example"
KEY = RSAKey.generate_key(2048, {"kid": "k1"})
OTHER = RSAKey.generate_key(2048, {"kid": "k1"})
SETTINGS = OidcSettings(
    issuer=ISSUER, client_id="mdh", public_url="http://hub", roles=[ClaimRule(claim="groups", value="clerks", grant=Grant(role="clerk"))]
)


class Fake:
    def __init__(self) -> None:
        self.token, self.asked = "", dict[str, list[str]]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("openid-configuration"):
            places = {"authorization_endpoint": f"{ISSUER}/auth", "token_endpoint": f"{ISSUER}/token", "jwks_uri": f"{ISSUER}/keys"}
            return httpx.Response(200, json={"issuer": ISSUER, **places})
        if request.url.path == "/keys":
            return httpx.Response(200, json={"keys": [KEY.as_dict(private=False)]})
        self.asked = parse_qs(request.content.decode())
        return httpx.Response(200, json={"access_token": "a", "token_type": "Bearer", "id_token": self.token})


def signed(nonce: str, key: Any = KEY, **changes: Any) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "mdh", "exp": now + 300, "iat": now, "sub": "1", "nonce": nonce, "preferred_username": "anna",
              "groups": ["clerks"], **changes}  # fmt: skip
    return jwt.encode({"alg": "RS256", "kid": "k1"}, claims, key)


def test_code_flow_with_pkce_names_the_person_and_her_roles() -> None:
    fake = Fake()
    provider = Provider(SETTINGS, None, transport=httpx.MockTransport(fake))
    address, attempt = provider.start("/todos")
    asked = parse_qs(urlsplit(address).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["state"] == [attempt.state]
    fake.token = signed(attempt.nonce)

    person = provider.finish(attempt, attempt.state, "c")

    assert (person.name, person.grants) == ("anna@idp", (Grant(role="clerk"),))
    assert fake.asked["code_verifier"] == [attempt.verifier]
    with pytest.raises(ProviderError, match="state"):
        provider.finish(attempt, "another", "c")


@pytest.mark.parametrize(
    "token",
    [
        signed("n", exp=1), signed("n", aud="other"), signed("n", iss="https://evil.example"), signed("other"), signed("n", OTHER),
        signed("n", aud=["mdh", "other"]), "eyJhbGciOiJub25lIn0." + signed("n").split(".")[1] + ".", "nonsense",
    ],
    ids=["expired", "audience", "issuer", "nonce", "foreign-key", "no-azp", "alg-none", "nonsense"],
)  # fmt: skip
def test_id_tokens_that_do_not_count(token: str) -> None:
    provider = Provider(SETTINGS, None, transport=httpx.MockTransport(Fake()))
    assert provider.claims(signed("n"), "n")["sub"] == "1"

    with pytest.raises(ProviderError):
        provider.claims(token, "n")


def test_whom_no_rule_knows_is_refused_and_next_stays_here() -> None:
    with pytest.raises(ProviderError, match="role"):
        Provider(SETTINGS, None).person({"preferred_username": "eve", "groups": ["others"]})
    assert [inside(path) for path in ("/todos", "//evil.example", "https://evil.example", "/\\evil")] == ["/todos", "/", "/", "/"]
