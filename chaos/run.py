"""Running experiments one after the other on one system, and settling what each of them left."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from chaos import soak
from chaos.disk import data_folder
from chaos.experiment import Experiment
from chaos.receiver import Receiver
from chaos.record import Record
from chaos.redis_pair import RedisPair
from chaos.scale import Scale
from chaos.system import System
from chaos.trial import Trial

SETTLE_SECONDS = 150  # longer than a search's deadline
START_SECONDS = 60
UNHANDLED_SHOWN = 3

Show = Callable[[str, str], None]


@dataclass(frozen=True)
class Run:
    """One run of the suite.

    Attributes:
        scale: how much of everything.
        folder: gets logs and data; new.
        seed: of every random choice.
        show: is told the name of an experiment, and what it does at the moment.
    """

    scale: Scale
    folder: Path
    seed: int
    show: Show

    def experiments(self, chosen: Sequence[Experiment]) -> list[Record]:
        """Do experiments, each settled before the next begins: on one system, and on one whose Redis has a replica."""
        alone = [experiment for experiment in chosen if not experiment.needs_replica]
        paired = [experiment for experiment in chosen if experiment.needs_replica]
        records = self._on_one_system(alone, "state", "data", None) if alone else []
        if paired:
            with RedisPair.running(self.folder / "pair-redis") as redis_pair:
                records += self._on_one_system(paired, "pair-state", "pair-data", redis_pair)
        return records

    def _on_one_system(
        self, chosen: Sequence[Experiment], state: str, data: str, redis_pair: RedisPair | None
    ) -> list[Record]:
        self.show(chosen[0].name, "starting all processes")
        with (
            data_folder(self.folder / data) as has_disk,
            Receiver() as receiver,
            System.running(self.folder / state, self.folder / data, receiver, redis_pair=redis_pair) as system,
        ):
            return [self._do(experiment, system, receiver, has_disk) for experiment in chosen]

    def soak(self, minutes: int) -> Record:
        """Do the soak, on a system of its own."""
        self.show("soak", "starting all processes")
        data = self.folder / "soak-data"  # on the disk: half an hour's imports would fill a small file system
        data.mkdir(parents=True)
        with (
            Receiver() as receiver,
            System.running(self.folder / "soak-state", data, receiver, soak.SETTINGS) as system,
        ):
            return self._do(soak.soak(minutes), system, receiver, has_disk=False)

    def _do(self, experiment: Experiment, system: System, receiver: Receiver, has_disk: bool) -> Record:
        record = Record(experiment.name, experiment.done, experiment.checked)
        if experiment.needs_disk and not has_disk:
            record.skipped = "Only root can make a small file system, and this system lets nobody."
            return record
        chooser = Random(f"{self.seed}/{experiment.name}")
        trial = Trial(system, receiver, self.scale, record, chooser, lambda text: self.show(experiment.name, text))
        started, doubled_before = time.monotonic(), set(receiver.doubled())
        for step in (lambda: experiment.run(trial), lambda: trial.ledger.settle(trial.read, SETTLE_SECONDS)):
            try:
                step()
            except Exception as error:  # noqa: BLE001 - the next experiment still runs, and the page says what happened
                record.broken.append(f"the experiment came to no end: {error!r}")
            trial.say("settling")
        self._close(trial, experiment, len(set(receiver.doubled()) - doubled_before))
        record.seconds = round(time.monotonic() - started, 1)
        return record

    def _close(self, trial: Trial, experiment: Experiment, doubled_webhooks: int) -> None:
        record, ledger, system = trial.record, trial.ledger, trial.system
        for name in system.processes:
            if not system.group.is_running(name):
                record.broken.append(f"{name} had ended by itself")
                system.group.restart(name)
        trial.require(system.wait_for_workers(1, START_SECONDS), "there was not one search worker afterwards")
        record.accepted, record.finished = ledger.accepted, ledger.finished
        record.failed = dict(ledger.failed)
        record.lost += len(ledger.lost)
        if experiment.loses_jobs:
            record.told = ledger.gone
        else:
            record.lost += ledger.gone
        record.doubled += len(ledger.doubled) + doubled_webhooks
        unhandled = system.unhandled()
        record.unhandled = len(unhandled)
        record.broken += [f"unhandled: {line}" for line in unhandled[:UNHANDLED_SHOWN]]
