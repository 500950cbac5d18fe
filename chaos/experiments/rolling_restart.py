"""A deploy: two of web and of search, stopped by SIGTERM and started anew one after the other, under load."""

from chaos.experiment import Experiment
from chaos.load import Load
from chaos.system import GRACE_SECONDS, ROOT
from chaos.trial import Trial
from demo.processes import ProcessGroup

START_SECONDS = 60


def run(trial: Trial) -> None:
    """Restart each process of both halves, and bulk, while clients search through both web processes."""
    system = trial.system
    second = ProcessGroup(
        ROOT,
        system.folder / "second",
        environment=system.environment,
        processes=["web", "search"],
        redis_url=system.group.redis_url,
        grace_seconds=GRACE_SECONDS,
    )
    with second:
        trial.require(system.wait_for_workers(2, START_SECONDS), "two search workers were not present")
        import_id = trial.send_import("rolled", trial.scale.side_rows)
        load = Load([system.base_url, second.base_url], trial.ledger)
        with load.running():
            load.wait_for(10, 30)
            for group in (system.group, second):
                for name in ("web", "search"):
                    trial.say(f"SIGTERM to {name}; {load.answered} searches answered")
                    group.restart(name)
                    group.wait_until_ready()
                    trial.require(system.wait_for_workers(2, START_SECONDS), f"{name} did not come back")
                    load.wait_for(load.answered + 20, 30)
            trial.say("SIGTERM to bulk")
            system.group.restart("bulk")
    trial.check_load(load)
    trial.require(not load.dropped, f"{load.dropped} connections broke, which had been made")
    trial.check_import(import_id, "rolled", trial.scale.side_rows, 300)
    trial.require(not trial.ledger.failed, f"searches failed: {dict(trial.ledger.failed)}")


EXPERIMENT = Experiment(
    "rolling-restart",
    "Two web and two search processes, each stopped by SIGTERM and started anew, one after the other, under "
    "load; then bulk.",
    "No search fails, no connection that was made is dropped; the import succeeds.",
    run,
)
