"""Clients that hold connections and do nothing useful with them."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread

from benchmarks.report import percentile
from chaos.experiment import Experiment
from chaos.trial import Trial

DRIPPING = 20
NEVER_READING = 5
PIPELINED = 2000
HEAD = b"POST /v1/searches HTTP/1.1\r\nHost: chaos\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
HEALTH_SECONDS = 2


def run(trial: Trial) -> None:
    """Hold connections in three bad ways, and search meanwhile."""
    port, scale = trial.system.port, trial.scale
    with ExitStack() as held:
        trial.say(f"{scale.idle_connections} idle connections, {DRIPPING} dripping, {NEVER_READING} that read nothing")
        for _ in range(scale.idle_connections):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        for _ in range(NEVER_READING):
            _ask_and_never_read(held.enter_context(socket.create_connection(("127.0.0.1", port), 5)))
        held.enter_context(_dripping(port))
        load = trial.load()
        with load.running():
            load.wait_for(scale.searches // 2, 120)
            started = time.monotonic()
            trial.require(trial.system.get("/healthz").ok, "/healthz failed")
            elapsed = time.monotonic() - started
    trial.require(elapsed < HEALTH_SECONDS, f"/healthz took {elapsed:.1f} s")
    trial.check_load(load)
    trial.require(load.answered >= scale.searches // 2, f"{load.answered} searches only were answered")
    if load.milliseconds:
        trial.record.figures["p95_ms"] = round(percentile(load.milliseconds, 0.95))
    trial.recovery("slow clients gone")


def _ask_and_never_read(connection: socket.socket) -> None:
    """Send so many requests that their answers fill every buffer on the way."""
    connection.setblocking(False)
    asked = b"GET /v1/items?limit=500 HTTP/1.1\r\nHost: chaos\r\n\r\n" * PIPELINED
    with suppress(BlockingIOError):
        while asked:
            asked = asked[connection.send(asked) :]


@contextmanager
def _dripping(port: int) -> Iterator[None]:
    """Send a body byte by byte, one a second, on several connections, for as long as the block lasts."""
    is_over = Event()

    def drip() -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(HEAD)
            while not is_over.wait(1):
                connection.sendall(b"x")

    threads = [Thread(target=drip, daemon=True) for _ in range(DRIPPING)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(5)


EXPERIMENT = Experiment(
    "slow-clients",
    f"500 idle connections, {DRIPPING} clients that send a byte a second, {NEVER_READING} that ask and never read; "
    "others search.",
    "The others are served, /healthz answers at once.",
    run,
)
