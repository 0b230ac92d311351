"""Every door has a rule, and rules mean the doors they stand at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import typer

from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.rights import policy
from mdh.cli import COMMANDS, app
from mdh.parts import PARTS
from schemas.topology.rights import PERMISSIONS


def doors(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of all that an app serves, routers within and mounts included."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from doors(inner.routes, prefix + route.include_context.prefix)
            continue
        methods = getattr(route, "methods", None)
        if methods is None:
            yield "GET", f"{prefix}{route.path}/{{rest:path}}"
        for method in sorted(set(methods or ()) - {"HEAD", "OPTIONS"}):
            yield method, prefix + route.path


def whole_app() -> Any:
    nothing = cast(Any, None)
    return create_app(Desk(nothing, nothing, nothing, list), [part.routes(nothing) for part in PARTS if part.routes])


def test_every_route_has_a_policy() -> None:
    found = [f"{method} {path}" for method, path in doors(whole_app().routes)]

    assert len(found) > 60
    assert [key for key in found if policy.rule_of(key) is None] == []


def test_a_route_without_policy_would_be_found() -> None:
    whole = whole_app()
    whole.get("/v1/forgotten")(lambda: None)

    assert ("GET", "/v1/forgotten") in set(doors(whole.routes))
    assert policy.rule_of("GET /v1/forgotten") is None


def test_every_path_is_matched_by_the_rule_of_its_route() -> None:
    """What the guard finds by the path is the rule of the route that serves it."""
    wrong = []
    for method, path in doors(whole_app().routes):
        example = (
            path.replace("{id:path}", "a/b").replace("{rest:path}", "x/y").replace("{kind}", "device").replace("{", "").replace("}", "")
        )
        if policy.match(method, example) != f"{method} {path}":
            wrong.append((method, path, policy.match(method, example)))
    assert wrong == []


def test_rules_name_permissions_that_exist() -> None:
    for key in policy.ROUTES:
        rule = policy.rule_of(key)
        assert rule is not None
        assert rule.permission == policy.OPEN or rule.permission in PERMISSIONS, key
        for place in rule.places:
            source, name, _ = place.split(":")
            assert source in ("path", "query", "body"), key
            assert source != "path" or f"{{{name}" in key, key


def test_only_health_documentation_and_login_are_open() -> None:
    opened = {key for key in policy.ROUTES if policy.rule_of(key) == policy.Rule(policy.OPEN)}

    first = {key.split(" ")[1].split("/")[1] for key in opened}
    assert first == {"", "console", "health", "docs", "openapi.json", "assets", "portal", "v1"}
    assert {key.split(" ")[1] for key in opened if "/console" in key} == {
        "/console", "/console/login", "/console/refused", "/console/static/{name}"
    }  # fmt: skip
    assert {key.split(" ")[1] for key in opened if "/v1/" in key} == {
        "/v1/session", "/v1/session/first", "/v1/session/reset", "/v1/session/oidc", "/v1/session/oidc/callback"
    }  # fmt: skip


def commands(command: Any, name: str = "") -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
    for verb, below in (inner or {}).items():
        yield from commands(below, f"{name} {verb}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_policy(name: str) -> None:
    root: Any = typer.main.get_command(app)
    for full in commands(root.get_command(None, name), name):
        found = policy.COMMANDS.get(full) or policy.COMMANDS.get(name)
        assert found in (policy.HERE, policy.KAFKA) or found in PERMISSIONS, full
