"""The codec of an installation: ids of a schema registry where one is configured, else the committed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdh.errors import UsageError
from schemas.codec import Codec

if TYPE_CHECKING:
    from mdh.settings import Settings
    from schemas.topology import Topology


def codec_of(settings: Settings, topology: Topology) -> Codec:
    """The codec for everything on Kafka. Raises UsageError where the registry does not answer or lacks a version."""
    if settings.registry is None:
        return Codec()
    from connectors.kafka.registry import Registry, RegistryError
    from schemas.compatibility import read

    login = settings.registry
    password = login.password.get_secret_value() if login.password else None
    try:
        with Registry(login.url, login.username, password, login.ca_file) as registry:
            return Codec(registry.ids(topology, read()[1]))
    except RegistryError as error:
        raise UsageError(f"{error}; `mdh schemas register` registers what is missing") from None
