"""kill -9 of Redis while clients search and a catalogue is imported: with its append-only file, and without."""

import shutil
import time

import requests

from chaos.experiment import Experiment
from chaos.photos import photo
from chaos.trial import Trial

AWAY_SECONDS = 1.5
REFUSAL_SECONDS = 10


def run_kept(trial: Trial) -> None:
    """Redis comes back with its data: all of it, for it synced each write before it answered.

    With `everysec`, as demo and Compose have it, a Redis that is killed while the disk syncs loses up to two seconds of
    writes that it had answered; jobs of these seconds are gone, or run again. docs/operations.md says so.
    """
    rows = trial.scale.side_rows
    with trial.system.redis() as client:
        client.config_set("appendfsync", "always")
    import_id = trial.send_import("kept", rows)
    with trial.load().running() as load:
        time.sleep(trial.scale.steady_seconds)
        trial.say("kill -9 redis")
        trial.system.group.kill("redis")
        _check_refusal(trial)
        trial.system.group.restart("redis")
        trial.recovery("Redis killed")
        time.sleep(trial.scale.steady_seconds)
    trial.check_load(load)
    trial.check_import(import_id, "kept", rows, 300)


def run_emptied(trial: Trial) -> None:
    """Redis comes back with nothing: searches are gone, and clients are told so; the catalogue and imports stay."""
    rows, group = trial.scale.side_rows, trial.system.group
    import_id = trial.send_import("emptied", rows)
    with trial.load().running() as load:
        time.sleep(trial.scale.steady_seconds)
        trial.say("kill -9 redis, and remove its data")
        with trial.system.redis() as client:
            client.config_set("appendonly", "no")
        group.kill("redis")
        _check_refusal(trial)
        shutil.rmtree(trial.system.folder / "redis")
        (trial.system.folder / "redis").mkdir()
        group.restart("redis")
        trial.recovery("Redis emptied")
        time.sleep(trial.scale.steady_seconds)
    trial.check_load(load)
    trial.check_import(import_id, "emptied", rows, 300)


def _check_refusal(trial: Trial) -> None:
    """Without Redis a search is refused, soon and with advice; web itself goes on."""
    started = time.monotonic()
    try:
        answer = trial.system.post("/v1/searches", files={"image": photo("refused")})
        is_told = answer.status_code == 503 and answer.headers.get("Retry-After", "").isdigit()
        trial.require(is_told, f"a search was answered {answer.status_code} {answer.text[:200]} while Redis was away")
        trial.require(trial.system.get("/healthz").ok, "/healthz failed while Redis was away")
        trial.require(trial.system.get("/readyz").status_code == 503, "/readyz did not say that Redis was away")
    except requests.RequestException as error:
        trial.record.broken.append(f"web did not answer while Redis was away: {error!r}")
    elapsed = time.monotonic() - started
    trial.require(elapsed < REFUSAL_SECONDS, f"the refusal took {elapsed:.1f} s")
    time.sleep(max(0.0, AWAY_SECONDS - elapsed))


KEPT = Experiment(
    "killed-redis-kept",
    "kill -9 of Redis with its append-only file (`appendfsync always`), during searches and an import; it starts "
    "again.",
    "503 with Retry-After while it is away; workers come back by themselves; every accepted job ends.",
    run_kept,
)
EMPTIED = Experiment(
    "killed-redis-emptied",
    "kill -9 of Redis without an append-only file, during searches and an import; it starts again, empty.",
    "Clients that wait for a search are told that it is gone, none waits in vain; the import goes on.",
    run_emptied,
    loses_jobs=True,
)
