"""Pictures for the end-to-end tests: drawn ones, and a server that hands them out by URL."""

import io
import random
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from PIL import Image, ImageDraw

POISON = b"this photo kills its worker"
"""Behind a photo, it has tests/poisoned_worker.py end its process."""


def encoded(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def decoded(data: bytes) -> Image.Image:
    """Return the pixels of an image file as they are stored."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def drawing(name: str, side: int = 96) -> Image.Image:
    """Draw some coloured shapes; each name gives another picture, always the same one."""
    rng = random.Random(name)

    def colour() -> tuple[int, int, int]:
        return rng.randrange(256), rng.randrange(256), rng.randrange(256)

    image = Image.new("RGB", (side, side), colour())
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        left, top, right, bottom = (rng.randrange(side) for _ in range(4))
        box = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        rng.choice((draw.rectangle, draw.ellipse))(box, fill=colour())
    return image


def picture(name: str) -> bytes:
    """Return a drawing as a PNG file."""
    return encoded(drawing(name))


class PictureServer:
    """A shop's web server; pictures below /slow/ only come once `release` is set."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.release = Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/slow/"):
                    server.release.wait(60)
                body = server.files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def add(self, path: str, body: bytes) -> str:
        """Hand out a file, and return its URL."""
        self.files[path] = body
        return self._url + path

    def close(self) -> None:
        """Stop answering."""
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
