"""Mapping profiles in topology.yaml."""

from __future__ import annotations

from schemas.topology.base import Section


class Profile(Section):
    """How columns of a foreign file map to ours."""
