"""Redis at its maxmemory: it answers reads and refuses writes."""

import time

from chaos.experiment import Experiment
from chaos.photos import photo
from chaos.trial import Trial


def run(trial: Trial) -> None:
    """Set the limit to what is used, look, and lift it."""
    scale = trial.scale
    import_id = trial.send_import("full-redis", scale.side_rows)
    known = trial.search("full-redis")
    trial.finished(known, 30)
    with trial.load().running() as load, trial.system.redis() as client:
        time.sleep(scale.steady_seconds)
        trial.say("maxmemory")
        try:
            client.config_set("maxmemory", 1)
            answer = trial.system.post("/v1/searches", files={"image": photo("refused")})
            is_told = answer.status_code == 503 and answer.headers.get("Retry-After", "").isdigit()
            trial.require(is_told, f"a search was answered {answer.status_code} {answer.text[:200]}")
            read = trial.system.get(f"/v1/jobs/{known}")
            trial.require(read.ok, f"a finished job could not be read: {read.status_code} {read.text[:200]}")
            time.sleep(scale.full_seconds)
        finally:
            client.config_set("maxmemory", 0)
        trial.recovery("Redis full")
        time.sleep(scale.steady_seconds)
    trial.check_load(load)
    trial.check_import(import_id, "full-redis", scale.side_rows, 300)


EXPERIMENT = Experiment(
    "full-redis",
    "Redis at maxmemory with noeviction, during searches and an import; after a while memory is free again.",
    "Searches are refused with 503 and Retry-After, finished jobs can be read; every accepted job ends.",
    run,
)
