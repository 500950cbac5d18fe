"""Redis stands still (SIGSTOP), with all connections open: nobody is refused, nobody is answered."""

import signal
import time

import requests

from chaos.experiment import Experiment
from chaos.photos import photo
from chaos.trial import Trial

ANSWER_SECONDS = 30


def run(trial: Trial) -> None:
    """Stop Redis, ask meanwhile, and let it go on."""
    group, scale = trial.system.group, trial.scale
    import_id = trial.send_import("paused", scale.side_rows)
    with trial.load().running() as load:
        time.sleep(scale.steady_seconds)
        trial.say(f"SIGSTOP to redis for {scale.pause_seconds:g} s")
        group.kill("redis", signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            asked = time.monotonic()
            trial.require(trial.system.get("/healthz", timeout=5).ok, "/healthz failed")
            if scale.pause_seconds >= ANSWER_SECONDS / 2:
                _check_refusal(trial, asked)
        except requests.RequestException as error:
            trial.record.broken.append(f"web did not answer while Redis stood still: {error!r}")
        finally:
            time.sleep(max(0.0, stopped + scale.pause_seconds - time.monotonic()))
            group.kill("redis", signal.SIGCONT)
        trial.recovery("Redis paused")
        time.sleep(scale.steady_seconds)
    trial.check_load(load)
    trial.check_import(import_id, "paused", scale.side_rows, 300)


def _check_refusal(trial: Trial, asked: float) -> None:
    answer = trial.system.post("/v1/searches", files={"image": photo("paused")}, timeout=ANSWER_SECONDS)
    trial.record.figures["refused_after_s"] = round(time.monotonic() - asked, 1)
    is_told = answer.status_code == 503 and answer.headers.get("Retry-After", "").isdigit()
    if answer.status_code in (200, 202):
        trial.accepted(answer)  # it took as long as the pause
    else:
        trial.require(is_told, f"a search was answered {answer.status_code} while Redis stood still")


EXPERIMENT = Experiment(
    "paused-redis",
    "SIGSTOP to Redis for 20 s (quick: 5 s) during searches and an import, then SIGCONT.",
    "Clients get 503 with Retry-After, or a late answer; workers go on by themselves; every accepted job ends.",
    run,
)
