"""Which addresses deliveries may go to. A name is resolved once, checked, and that very address is connected to."""

from __future__ import annotations

import socket
from collections.abc import Callable
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from schemas.topology.subscribers import DeliverySettings

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], list[str]]


class ForbiddenError(Exception):
    """An address that this hub does not deliver to."""


class UnresolvedError(Exception):
    """A name that has no address now."""


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, by the resolver of this machine. Raises UnresolvedError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnresolvedError(f"{host}: {getattr(error, 'strerror', None) or error}") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Admits hosts and addresses by the settings of delivery."""

    def __init__(self, settings: DeliverySettings, resolver: Resolve = resolve) -> None:
        self.settings = settings
        self._networks = [ip_network(network) for network in settings.networks]
        self._resolve = resolver

    def check_name(self, host: str, scheme: str = "https") -> None:
        """Raises ForbiddenError for what can never be allowed: a host outside the list, a private address, plain HTTP."""
        name = host.lower().rstrip(".")
        if self.settings.hosts and not any(fnmatchcase(name, pattern) for pattern in self.settings.hosts):
            raise ForbiddenError(f"{host} is none of delivery.hosts")
        try:
            literal = ip_address(name)
        except ValueError:
            literal = None
        if literal is not None:
            self._check(literal, host)
        if scheme == "http" and not self.settings.plain_http:
            raise ForbiddenError("http:// is not encrypted: use https://, or set delivery.plain_http for private networks")

    def address(self, host: str, port: int, scheme: str = "https") -> str:
        """The address to connect to. Raises ForbiddenError, or UnresolvedError where the name has none now.

        All addresses of a name must be allowed: a name that has a private one beside a public one is not to be trusted.
        """
        self.check_name(host, scheme)
        found = self._resolve(host, port)
        if not found:
            raise UnresolvedError(f"{host} has no address")
        for text in found:
            address = ip_address(text.partition("%")[0])
            self._check(address, host)
            if scheme == "http" and not self._private(address):
                raise ForbiddenError(f"{host}: http:// is for delivery.networks only")
        return found[0].partition("%")[0]

    def _private(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _check(self, address: Address, host: str) -> None:
        for form in _forms(address):
            if not self._private(form) and (not form.is_global or form.is_multicast):
                raise ForbiddenError(f"{host} is {address}, which is not public: name its network in delivery.networks to deliver there")


def _forms(address: Address) -> list[Address]:
    """An address and the IPv4 address it carries inside, if it does."""
    inside = [] if isinstance(address, IPv4Address) else [address.ipv4_mapped, address.sixtofour, (address.teredo or (None, None))[1]]
    if isinstance(address, IPv6Address) and address in ip_network("64:ff9b::/96"):
        inside.append(IPv4Address(int(address) & 0xFFFFFFFF))
    carried: list[Address] = [found for found in inside if found is not None]
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return carried  # connects to the IPv4 address itself
    return [address, *carried]
