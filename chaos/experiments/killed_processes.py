"""kill -9 of each kind of process, at random, while clients search and a catalogue is imported."""

import time

from chaos.experiment import Experiment
from chaos.trial import Trial

KINDS = ("web", "search", "bulk", "callbacks", "beat")
CALLBACK_EVERY = 10
# A webhook whose worker died is posted again 60 s + its timeout later, and some seconds may pass until it is taken.
WEBHOOK_SECONDS = 90
PREFIX = "killed"


def run(trial: Trial) -> None:
    """Kill each kind as often as the scale says, in random order."""
    system, scale = trial.system, trial.scale
    import_id = trial.send_import(PREFIX, scale.rows)
    kinds = list(KINDS) * scale.kills
    trial.random.shuffle(kinds)
    hooks: list[str] = []

    def callback_of(number: int) -> str | None:
        if number % CALLBACK_EVERY:
            return None
        hook = f"/ok/killed/{number}"
        hooks.append(hook)
        return f"http://killed.shop.example{hook}"

    with trial.load(callback_of=callback_of).running() as load:
        for number, kind in enumerate(kinds, 1):
            trial.say(f"kill -9 {kind}, {number} of {len(kinds)}; {load.answered} searches answered")
            load.wait_for(load.answered + trial.random.randint(1, 10), 30)
            system.group.kill(kind)
            time.sleep(trial.random.uniform(0.1, 1.0))
            if kind == "bulk":
                trial.check_rows_reported(import_id, PREFIX)
            system.group.restart(kind)
            trial.recovery(f"{kind} killed")
        trial.require(load.wait_for(scale.searches, 300), f"{load.answered} searches only were answered")
    trial.check_load(load)
    trial.check_import(import_id, PREFIX, scale.rows, 300)
    trial.say("waiting for webhooks")
    trial.wait_for(lambda: all(trial.receiver.tries(hook) for hook in hooks), WEBHOOK_SECONDS)
    missing = [hook for hook in hooks if not trial.receiver.tries(hook)]
    trial.record.lost += len(missing)
    trial.require(not missing, f"webhooks that never came: {missing[:5]}")
    trial.record.figures |= {"kills": len(kinds), "webhooks": len(hooks)}


EXPERIMENT = Experiment(
    "killed-processes",
    "kill -9 of web, search, bulk, callbacks and beat, in random order, during searches and an import; "
    "each starts again.",
    "Every search and the import end; rows reported done are there and are found; each webhook comes, under one id.",
    run,
)
