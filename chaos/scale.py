"""How much of each experiment: the whole of it, or the shorter form for CI and for trying."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of the experiments.

    Attributes:
        searches: sent at least while processes are killed.
        rows: of the import that runs beside them.
        side_rows: of the import that runs beside any other fault.
        kills: how often each kind of process is killed.
        steady_seconds: how long clients search before and after a fault.
        pause_seconds: how long Redis stands still.
        full_seconds: how long Redis refuses writes.
        idle_connections: opened and left alone.
        mutated: images, and requests.
        snapshot_rows: rows that it takes to have an index snapshot to damage; 0: none is damaged.
        doubled: searches whose message is sent twice.
    """

    searches: int
    rows: int
    side_rows: int
    kills: int
    steady_seconds: float
    pause_seconds: float
    full_seconds: float
    idle_connections: int
    mutated: int
    snapshot_rows: int
    doubled: int


FULL = Scale(
    searches=1000,
    rows=5000,
    side_rows=1000,
    kills=3,
    steady_seconds=5,
    pause_seconds=20,
    full_seconds=10,
    idle_connections=500,
    mutated=1000,
    snapshot_rows=1500,
    doubled=100,
)
QUICK = Scale(
    searches=100,
    rows=200,
    side_rows=100,
    kills=1,
    steady_seconds=1,
    pause_seconds=5,
    full_seconds=2,
    idle_connections=500,
    mutated=100,
    snapshot_rows=0,
    doubled=20,
)
