"""A shop's server that behaves as badly as it is told to, and a trap that nobody may ever reach."""

from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, Self

from chaos.photos import photo

HOST = "127.0.0.1"
FAILURES = 2  # what /failing answers 500 to, of each webhook


class Trap(ThreadingHTTPServer):
    """Counts whoever connects; it stands for a private service that a client's URL must never lead to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), BaseHTTPRequestHandler)
        self.connections = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.server_port}/"

    def verify_request(self, _request: Any, _client_address: Any) -> bool:
        """Count a connection, and hang up."""
        self.connections += 1
        return False


class Receiver:
    """Webhooks by path: /ok, /slow (no answer in time), /failing (500 at first), /moved (to the trap).

    A GET is answered with a photo, or from /moved with the way to the trap, in IPv6 from /moved-mapped, and from /again
    with the way to another path of the same name.
    """

    def __init__(self) -> None:
        self.trap = Trap()
        self._lock = Lock()
        self._tries: Counter[str] = Counter()
        self._ids: defaultdict[str, set[str]] = defaultdict(set)
        self._bodies: defaultdict[str, set[bytes]] = defaultdict(set)
        self._closing = Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(receiver.note(self.path, self.headers["webhook-id"], body))

            def do_GET(self) -> None:
                self._answer(302 if self.path.startswith(("/moved", "/again")) else 200, photo(self.path))

            def _answer(self, status: int, body: bytes = b"") -> None:
                if self.path.startswith("/slow"):
                    receiver.wait()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", receiver.way_from(self.path, self.headers["Host"]))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass  # the client hung up, as it should on /slow

        self._server = Server((HOST, 0), Handler)
        self.port = self._server.server_port
        self._threads = [Thread(target=server.serve_forever, daemon=True) for server in (self._server, self.trap)]

    def note(self, path: str, webhook_id: str, body: bytes) -> int:
        """Keep a delivery, whose path ends with what the experiment knows the webhook by; returns the status."""
        with self._lock:
            self._tries[path] += 1
            self._ids[path].add(webhook_id)
            self._bodies[path].add(body)
            if path.startswith("/failing") and self._tries[path] <= FAILURES:
                return 500
            return 302 if path.startswith("/moved") else 204

    def way_from(self, path: str, name: str) -> str:
        """Return where a path leads: to the trap, but for /again."""
        if path.startswith("/again"):
            return f"http://{name}/photo.jpg"
        host = "[::ffff:127.0.0.1]" if "mapped" in path else HOST
        return f"http://{host}:{self.trap.server_port}/"

    def wait(self) -> None:
        """Answer nothing until the run ends, or a client has long lost its patience."""
        self._closing.wait(15)

    def tries(self, path: str) -> int:
        """Return how often a path was posted to."""
        return self._tries[path]

    def doubled(self) -> list[str]:
        """Return the paths that were posted to under two ids, or with two bodies; each is of one webhook."""
        with self._lock:
            return sorted(path for path in self._ids if len(self._ids[path]) > 1 or len(self._bodies[path]) > 1)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for server in (self._server, self.trap):
            server.shutdown()
            server.server_close()
