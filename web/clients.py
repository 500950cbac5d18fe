"""Who is one client, for all that is counted by client: an API key, or an address where there is none."""

import ipaddress
from functools import lru_cache

from flask import request

from shared.settings import Settings
from web.access import caller, is_loopback, needs_keys

# Who has one address of IPv6 has as many as this network has.
IPV6_NETWORK_BITS = 64


def limits_clients(settings: Settings) -> bool:
    """Whether clients are limited: everywhere but where this machine alone reaches an open server, as in the demo."""
    return needs_keys(settings) or settings.trusted_proxies > 0 or not is_loopback(settings.web_bind)


def client_name() -> str:
    """Return who sent the request that is being answered, as a text without spaces."""
    key = caller().key
    return f"key:{key.id}" if key is not None else f"address:{_network(request.remote_addr or '')}"


@lru_cache(4096)
def _network(address: str) -> str:
    """Return what stands for an address; "unknown" for a Unix socket, and for what a proxy says that is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed, IPV6_NETWORK_BITS), strict=False))
