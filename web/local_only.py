"""What keeps a server without keys to this machine: a browser on it runs pages of everybody.

Any page may send a form to a loopback address, and one whose name its owner lets lead there (DNS rebinding) may read
the answers too. Browsers tell both apart: by `Origin`, and by `Host`.
"""

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, request

from shared.errors import HostRefused, OriginRefused
from shared.settings import Settings
from web.access import needs_keys

READING = ("GET", "HEAD", "OPTIONS")
REMEDY = (
    "or set LOOKALIKE_ACCESS=keys, or LOOKALIKE_ACCESS=open if everybody who reaches this server may do everything."
)


def keep_to_this_machine(app: Flask, settings: Settings) -> None:
    """Refuse what a page of another site sends, unless clients need a key or the server is open on purpose.

    Args:
        app: whose next requests are looked at.
        settings: say who may call.
    """
    if settings.access != "auto" or needs_keys(settings):
        return

    @app.before_request
    def check() -> None:
        if not settings.web_bind.startswith("unix:") and not _is_loopback_name(_part(f"//{request.host}", "hostname")):
            raise HostRefused(f"This server answers to localhost alone, not to {request.host!r}. Call it so, {REMEDY}")
        origin = request.headers.get("Origin")
        if origin is None or request.method in READING or origin in settings.origins:
            return
        if _part(origin, "netloc") != request.host:
            raise OriginRefused(
                f"A page of {origin!r} may not change anything here. Name it in LOOKALIKE_ALLOWED_ORIGINS, {REMEDY}"
            )


def _part(url: str, name: str) -> str:
    """Return a part of a URL; nothing where it has none, or is no URL.

    >>> [_part(f"//{host}", "hostname") for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "[")]
    ['localhost', '127.0.0.1', '::1', '']
    """
    try:
        return getattr(urlsplit(url), name) or ""
    except ValueError:
        return ""


def _is_loopback_name(host: str) -> bool:
    """Whether a name leads to this machine, whoever is asked for its address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in ("localhost", "localhost.")
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
