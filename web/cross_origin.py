"""Cross-origin requests (CORS): which other sites' pages may call the API from a browser; none unless named."""

from flask import Flask, Response, request

SHARED_PATHS = "/v1/"
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Cache-Control, Content-Type, Idempotency-Key, Prefer",
    "Access-Control-Max-Age": "7200",  # the longest that Chromium keeps it
}
# What a script may read beside the body.
EXPOSED = "Idempotent-Replayed, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After"


def allow_origins(app: Flask, origins: frozenset[str]) -> None:
    """Let pages of these origins call the API.

    `Access-Control-Allow-Credentials` is never sent: a key goes in a header that the page sets; there are no cookies.

    Args:
        app: before anything else looks at its requests, since a preflight carries no key.
        origins: as browsers send them, such as https://shop.example.
    """
    if not origins:
        return

    @app.before_request
    def answer_preflight() -> Response | None:
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        return Response(status=204, headers=PREFLIGHT) if is_preflight and _is_shared() else None

    @app.after_request
    def share(response: Response) -> Response:
        if request.path.startswith(SHARED_PATHS):
            response.vary.add("Origin")  # for those without one too: a cache would give their answer to the others
        if _is_shared():
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
        return response

    def _is_shared() -> bool:
        return request.path.startswith(SHARED_PATHS) and request.headers.get("Origin") in origins
