"""The folder of a run: what was asked, what came of it, and what it takes to go on.

config.json     plan, git revision, versions, fingerprint of the data
metrics.csv     one line for each epoch; metrics.jsonl the same with every figure
steps.jsonl     one line for each step, as it is done
checkpoint.pt   all that the next epoch depends on
best.pt         weights of the epoch with the highest Precision@5 on val
plots.png       loss, triplets, Precision@k by epoch
"""

import csv
import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training.files import writing_aside
from training.plan import Plan
from training.problem import TrainingProblem

PACKAGES = ("torch", "torchvision", "timm", "pytorch-metric-learning", "numpy")
SHOWN = ("epoch", "loss", "rate", "active_triplets", "spread", "p_at_1", "p_at_5", "p_at_10", "seconds", "cpu_seconds")


class RunFolder:
    """Reads and writes one run's folder; every file appears whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.checkpoint = path / "checkpoint.pt"
        self.best = path / "best.pt"
        self.plots = path / "plots.png"
        self._lines = path / "metrics.jsonl"
        self._steps = path / "steps.jsonl"

    def check_new(self) -> None:
        """Refuse to begin where a run is.

        Raises:
            TrainingProblem: if the folder has a run already.
        """
        if self.config.exists():
            raise TrainingProblem(f"{self.path} has a run already. Go on with --resume, or name another folder.")

    def begin(self, plan: Plan, about: Mapping[str, Any]) -> None:
        """Make the folder of a new run."""
        self.path.mkdir(parents=True, exist_ok=True)
        known = {name: version(name) for name in PACKAGES}
        self._write(self.config, {"plan": plan.to_dict(), **about, "revision": git_revision(), "packages": known})

    def add(self, figures: Mapping[str, float]) -> None:
        """Keep the figures of an epoch."""
        lines = [*self.figures(), dict(figures)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with writing_aside(self._lines) as aside:
            aside.write_text(text, encoding="utf-8")
        table = io.StringIO()
        writer = csv.DictWriter(table, SHOWN, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(lines)
        with writing_aside(self.path / "metrics.csv") as aside:
            aside.write_text(table.getvalue(), encoding="utf-8")

    def add_step(self, epoch: int, step: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of a step; what a crash cuts off is dropped when the run goes on."""
        with self._steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, "step": step, **figures}) + "\n")

    def figures(self, epochs: int | None = None) -> Sequence[dict[str, float]]:
        """Return the figures of all epochs, or of the first ones."""
        if not self._lines.exists():
            return []
        return [json.loads(line) for line in self._lines.read_text(encoding="utf-8").splitlines()][:epochs]

    def forget_after(self, epoch: int) -> None:
        """Drop figures of epochs whose checkpoint was never written, and of their steps."""
        kept = self.figures(epoch)
        with writing_aside(self._lines) as aside:
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        if self._steps.exists():
            *whole, _cut_off = self._steps.read_text(encoding="utf-8").split("\n")
            with writing_aside(self._steps) as aside:
                steps = [line for line in whole if json.loads(line)["epoch"] <= epoch]
                aside.write_text("".join(f"{line}\n" for line in steps), encoding="utf-8")

    def about(self) -> dict[str, Any]:
        """Return what config.json tells."""
        about: dict[str, Any] = json.loads(self.config.read_text(encoding="utf-8"))
        return about

    @staticmethod
    def _write(path: Path, values: Mapping[str, Any]) -> None:
        with writing_aside(path) as aside:
            aside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def git_revision() -> str:
    """Return the revision of this code, with a mark where files were changed since; "unknown" outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
