"""The losses at one budget: each trains the same network on the same batches for the same number of epochs.

    make bench-losses
    python -m benchmarks.losses --data ../shared/datasets/fashion --epochs 2

Trains with each loss of training/losses.py and judges the last epoch on val, photos of train being the
index; writes docs/results/losses.md and losses.json. Stored views are shared, so that the frozen stages are computed
once.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import heading, machine, write
from training.evaluate import judge_encoder
from training.export import best_model, manifest_of, write_weights
from training.judgement import Judgement, compare
from training.labelled_photos import Columns, LabelledPhotos, read_photos
from training.losses import LOSSES
from training.plan import read_plan
from training.run_folder import RunFolder
from training.train import main as train_command
from worker.encoder import save_encoder
from worker.encoder.runtimes import Runtime

REFERENCE = "triplet-hard"
RUNTIME: Runtime = "openvino"  # float32, as torch, in a third of the time
FIGURES = ("p_at_1", "p_at_5", "p_at_10", "map_at_r")

TRAINED_WITH = ("--views=2", "--precision=bfloat16", "--average=0.98")


def train(loss: str, asked: argparse.Namespace, folder: Path) -> list[str]:
    """Train with a loss, or go on with what an earlier call left; return the arguments of the training."""
    command = [f"--data={asked.data}", f"--label={asked.label}", f"--backbone={asked.backbone}", f"--out={folder}"]
    command += [f"--loss={loss}", f"--epochs={asked.epochs}", f"--judge-every={asked.epochs}", f"--rate={asked.rate:g}"]
    command += [*TRAINED_WITH, f"--threads={asked.threads}"]
    begun = command
    if (folder / "config.json").exists():
        known = read_plan(folder / "config.json").data
        if known != str(asked.data):
            raise SystemExit(f"{folder} was trained on {known}. Remove it, or name another folder with --scratch.")
        begun = [f"--resume={folder}"]
    train_command.main([*begun, f"--cache={asked.cache}"], standalone_mode=False)
    return command


def judge_run(folder: RunFolder, photos: LabelledPhotos, threads: int) -> Judgement:
    """Judge the best epoch of a run on val."""
    plan = read_plan(folder.config)
    model, _ = best_model(folder, plan)
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "weights.safetensors"
        write_weights(model, weights)
        encoder = Path(scratch) / "encoder"

        def write(aside: Path) -> None:
            shutil.copy(weights, aside)

        save_encoder(encoder, manifest_of(plan, plan.head, weights), write)
        return judge_encoder(str(encoder), RUNTIME, photos, "val", threads, lambda *_: None)


def rows_of(judged: dict[str, Judgement], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Return a row for each encoder, the best Precision@5 first, with its difference to the reference."""
    rows = []
    for name, judgement in judged.items():
        intervals = judgement.intervals()
        difference = compare(judgement, judged[REFERENCE])["p_at_5"]
        rows.append(
            {
                "loss": name,
                **{figure: vars(intervals[figure]) for figure in FIGURES},
                "gain": vars(difference.points),
                "p_value": difference.p_value,
                "cpu_seconds": round(seconds.get(name, 0.0)),
            }
        )
    return sorted(rows, key=lambda row: -row["p_at_5"]["mean"])


def page_of(rows: Sequence[dict[str, Any]], trained_by: Sequence[str], queries: int) -> str:
    """Return the page of results."""
    lines = [
        heading("Losses at one budget", "benchmarks.losses"),
        "Each loss trained the same network from the same weights, with the same batches and number of epochs, and no",
        f"other loss beside. Judged on val ({queries} queries, train being the index); in brackets the 95% interval of",
        f"2,000 bootstrap samples of queries. Gain: Precision@5 above `{REFERENCE}` on the same queries, with the",
        "p-value of a paired randomisation test. CPU: of all epochs, both cores together.",
        "",
        "| loss | Precision@1 | Precision@5 | Precision@10 | MAP@R | gain | p | CPU |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        figures = [f"{row[name]['mean']:.4f} [{row[name]['low']:.3f}, {row[name]['high']:.3f}]" for name in FIGURES]
        gain = "" if row["loss"] == REFERENCE else f"{row['gain']['mean']:+.4f}"
        p_value = "" if row["loss"] == REFERENCE else f"{row['p_value']:.4f}"
        time = f"{row['cpu_seconds']} s" if row["cpu_seconds"] else ""
        lines.append(f"| {row['loss']} | {' | '.join(figures)} | {gain} | {p_value} | {time} |")
    return "\n".join(
        [*lines, "", "One of the trainings:", "", f"    python -m training.train {' '.join(trained_by)}", ""]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line; unset, the arguments are the process's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="CSV file, or folder of products.csv")
    parser.add_argument("--label", default="article_type")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="its own weights are judged too")
    parser.add_argument("--scratch", type=Path, default=Path("var/training/losses"), help="runs; those there go on")
    parser.add_argument("--cache", type=Path, default=Path("var/training/cache"))
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args(arguments)
    losses = [REFERENCE, *(name for name in asked.losses if name != REFERENCE)]
    photos = read_photos(asked.data, Columns(label=asked.label, attributes=()))
    judged: dict[str, Judgement] = {}
    seconds: dict[str, float] = {}
    trained_by: list[str] = []
    for loss in losses:
        folder = asked.scratch / f"{asked.backbone}-{asked.label}-{loss}-{asked.epochs}-{asked.rate:g}"
        trained_by = train(loss, asked, folder)
        seconds[loss] = sum(epoch["cpu_seconds"] for epoch in RunFolder(folder).figures())
        judged[loss] = judge_run(RunFolder(folder), photos, asked.threads)
        print(f"p_at_5_{loss}: {judged[loss].intervals()['p_at_5']}", flush=True)
    untrained = judge_encoder(asked.backbone, RUNTIME, photos, "val", asked.threads, lambda *_: None)
    judged["none (ImageNet)"] = untrained
    rows = rows_of(judged, seconds)
    page = write("losses", page_of(rows, trained_by, len(judged[REFERENCE].found.queries)))
    values = {"machine": machine(), "epochs": asked.epochs, "rate": asked.rate, "rows": rows}
    page.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
