"""Redis fails over to its replica while clients search and a catalogue is imported: as asked to, and by a kill -9."""

import time
from collections.abc import Callable

from chaos.experiment import Experiment
from chaos.redis_pair import RedisPair
from chaos.trial import Trial

AWAY_SECONDS = 1.0


def run_handed_over(trial: Trial) -> None:
    """The primary hands over."""
    _run(trial, "handed", trial.system.redis_pair.fail_over)


def run_taken_over(trial: Trial) -> None:
    """The primary dies."""
    _run(trial, "taken", lambda: _kill(trial.system.redis_pair))


def _run(trial: Trial, prefix: str, fail_over: Callable[[], None]) -> None:
    rows = trial.scale.side_rows
    import_id = trial.send_import(prefix, rows)
    with trial.load().running() as load:
        time.sleep(trial.scale.steady_seconds)
        trial.say("failover")
        fail_over()
        trial.recovery("Redis failed over")
        time.sleep(trial.scale.steady_seconds)
    trial.check_load(load)
    trial.check_import(import_id, prefix, rows, 300)


def _kill(pair: RedisPair) -> None:
    pair.kill_primary()
    time.sleep(AWAY_SECONDS)
    pair.promote()


HANDED_OVER = Experiment(
    "redis-hands-over",
    "FAILOVER from Redis to its replica, during searches and an import. Connections that are open stay with the old "
    "primary, which refuses writes.",
    "503 with Retry-After at most; web and workers find the new primary by themselves; every accepted job ends.",
    run_handed_over,
    needs_replica=True,
)
TAKEN_OVER = Experiment(
    "redis-replica-takes-over",
    f"kill -9 of Redis, during searches and an import; {AWAY_SECONDS:g} s later its replica is the primary.",
    "503 with Retry-After while there is none; web and workers find the new one by themselves; the import ends. "
    "Jobs of the last moment may be gone, for a replica is told after the client; who waits for one is told so.",
    run_taken_over,
    needs_replica=True,
    loses_jobs=True,
)
