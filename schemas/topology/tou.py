"""Time of use and determinants in topology.yaml."""

from __future__ import annotations

from schemas.topology.base import Section


class DeterminantsSettings(Section):
    """How bill determinants are made."""
