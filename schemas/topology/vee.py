"""VEE in topology.yaml."""

from __future__ import annotations

from typing import Self

from schemas.topology.base import Section


class VeeSettings(Section):
    """How validation, estimation and editing behave."""

    @classmethod
    def default(cls) -> Self:
        """The settings of a topology that says nothing."""
        return cls()
