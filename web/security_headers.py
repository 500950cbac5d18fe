"""What browsers are told about every answer. HTTPS, and so Strict-Transport-Security, is the proxy's task."""

from flask import Flask, Response

# Scripts and styles of pages are files of ours, never in the page itself, so that injected ones do nothing.
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# What is no page is not to become one, whatever a client has uploaded.
OTHER_POLICY = "default-src 'none'; frame-ancestors 'none'"

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # images of items say `cross-origin` themselves
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def add_security_headers(app: Flask) -> None:
    """Give each answer the headers that it doesn't have already."""

    @app.after_request
    def add(response: Response) -> Response:
        policy = PAGE_POLICY if response.mimetype == "text/html" else OTHER_POLICY
        response.headers.setdefault("Content-Security-Policy", policy)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response
