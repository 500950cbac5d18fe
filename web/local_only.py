"""What keeps a server without keys to this machine: a browser on it runs pages of everybody.

Any page may send a form to a loopback address, and one whose name its owner lets lead there (DNS rebinding) may read
the answers too. Browsers tell both apart: by `Origin`, and by `Host`.
"""

from urllib.parse import urlsplit

from flask import Flask, request

from shared.errors import HostRefused, OriginRefused
from shared.settings import Settings
from web.access import is_loopback, needs_keys

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
        if not settings.web_bind.startswith("unix:") and not is_loopback(f"{_hostname(request.host)}:0"):
            raise HostRefused(f"This server answers to localhost alone, not to {request.host!r}. Call it so, {REMEDY}")
        origin = request.headers.get("Origin")
        if origin is None or request.method in READING or origin in settings.origins:
            return
        if urlsplit(origin).netloc != request.host:
            raise OriginRefused(
                f"A page of {origin!r} may not change anything here. Name it in LOOKALIKE_ALLOWED_ORIGINS, {REMEDY}"
            )


def _hostname(host: str) -> str:
    """Return a `Host` header without its port.

    >>> [_hostname(host) for host in ("localhost:8000", "127.0.0.1", "[::1]:80")]
    ['localhost', '127.0.0.1', '::1']
    """
    return urlsplit(f"//{host}").hostname or ""
