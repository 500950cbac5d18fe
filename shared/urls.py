"""Which client-named URLs, and which addresses behind them, this server may call.

`check_url` looks at the text alone, so web can refuse a bad `image_url` or `callback_url` before it accepts a job.
Only worker/fetcher.py knows where a name leads; it asks `check_address` at the moment it connects.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from shared.errors import UrlRefused

# What an operator allows with LOOKALIKE_ALLOW_PRIVATE_URLS: their own machine and their own networks.
PRIVATE_NETWORKS = tuple(
    map(
        ip_network,
        ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7"),
    )
)
# Cloud services that hand out credentials or settings to whoever asks, outside of the link-local range.
METADATA_ADDRESSES = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
# The IANA special-purpose ranges that `is_global` of some Python 3.11 or 3.12 takes for public ones.
SPECIAL_NETWORKS = tuple(
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)
GLOBAL_UNICAST_IPV6 = ip_network("2000::/3")

# RFC 6761, RFC 6762, RFC 8375 and ICANN's .internal: names that never belong to the public Internet.
PRIVATE_SUFFIXES = ("localhost", "localdomain", "local", "internal", "home.arpa")

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FORBIDDEN_CHARACTERS = re.compile(r"[\s\\\x00-\x1f\x7f]")

NOT_PUBLIC = (
    "The URL leads to an address that is not public. "
    "Name a public one, or let the operator set LOOKALIKE_ALLOW_PRIVATE_URLS=true."
)
NEVER_CALLED = (
    "The URL leads to a metadata, link-local, multicast or reserved address, which this server never calls. "
    "Name another host."
)


def check_url(url: str, *, allow_private: bool) -> None:
    """Refuse a URL whose text already shows that this server may not call it. Resolves no name.

    Args:
        url: as the client wrote it. Any port but 0 is fine.
        allow_private: whether loopback and private networks may be called.

    Raises:
        UrlRefused: not http(s), no valid host, credentials, a private name or address, or an IP address
            in another spelling than the usual one. The detail never repeats the URL: it may hold a secret.
    """
    if _FORBIDDEN_CHARACTERS.search(url):
        raise UrlRefused("The URL holds a space, a control character or a backslash. Percent-encode it.")
    try:
        # The fetcher's own parser, so both see the same host in a URL that parsers disagree about.
        parts = parse_url(url)
    except LocationParseError:
        raise UrlRefused("The URL can't be read. Write it as https://host/path, with ASCII letters in host.") from None
    if parts.scheme not in ("http", "https"):
        raise UrlRefused("The URL is not one of http or https. Begin it with https:// or http://.")
    if parts.auth is not None:
        raise UrlRefused("The URL holds a user name or password. Leave it out; a token may stand in path or query.")
    if not parts.host or parts.port == 0:
        raise UrlRefused("The URL names no host, or port 0. Write it as https://host/path or https://host:port/path.")
    _check_host(parts.host.removesuffix("."), allow_private)


def check_address(address: IPv4Address | IPv6Address, *, allow_private: bool) -> None:
    """Refuse an address that this server may not connect to.

    Args:
        address: where a connection would go. An IPv4-mapped IPv6 address counts as the IPv4 address in it.
        allow_private: whether loopback and private networks may be called. Metadata services, link-local,
            multicast, unspecified and reserved addresses are refused even so.

    Raises:
        UrlRefused: if the address is not public, nor a private one that is allowed.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address in METADATA_ADDRESSES:
        raise UrlRefused(NEVER_CALLED)
    if any(address in network for network in PRIVATE_NETWORKS):
        if not allow_private:
            raise UrlRefused(NOT_PUBLIC)
    elif not _is_public(address):
        raise UrlRefused(NEVER_CALLED)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST_IPV6:
        return False
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved)
        and not any(address in network for network in SPECIAL_NETWORKS)
    )


def _check_host(host: str, allow_private: bool) -> None:
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        pass
    else:
        check_address(address, allow_private=allow_private)
        return
    if not _HOST_NAME.fullmatch(host):
        raise UrlRefused("The URL's host is not a valid name. Write labels of letters, digits and '-', up to 63 each.")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        # The C library takes 2130706433, 0x7f.1 and 0177.0.0.1 for 127.0.0.1.
        raise UrlRefused("The URL's host looks like an IP address. Write it as four decimal numbers, as in 192.0.2.1.")
    is_private_name = "." not in host or any(host == name or host.endswith(f".{name}") for name in PRIVATE_SUFFIXES)
    if is_private_name and not allow_private:
        raise UrlRefused(NOT_PUBLIC)
