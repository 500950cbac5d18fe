"""Make an encoder of a run: a folder that `worker.encoder` opens and `python -m worker.build_release` serves.

    python -m training.export var/training/first --out var/training/first-encoder
    python -m training.export var/training/first --prefix 128 --out var/training/first-128    of the same run
    LOOKALIKE_ENCODER_WEIGHTS_PATH=var/training/first-encoder python -m worker.build_release

The folder holds weights.safetensors, classes.json, centroids.safetensors, metrics.json and manifest.json, which names
the transform, the head, the SHA-256 of each file, the fingerprint of the data, and what a score means.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from training.checkpoint import fit_model, load_checkpoint
from training.knowledge import calibrate_scores, class_statistics, write_knowledge
from training.labelled_photos import read_photos
from training.metrics import interval
from training.pixel_cache import fingerprint
from training.plan import Plan, read_plan
from training.problem import TrainingProblem
from training.retrieval import search
from training.run import check_data, columns_of, learnable, transform_of
from training.run_folder import RunFolder
from training.served import embed_photos, readable_rows
from training.served_head import AS_TRAINED, Additions, with_head
from worker.encoder import BACKBONES, EncoderUnavailable, encoder_id, save_encoder
from worker.encoder.head import Head
from worker.encoder.package import MANIFEST, WEIGHTS
from worker.encoder.torch_encoder import TorchEncoder

log = logging.getLogger(__name__)


def export_run(folder: RunFolder, out: Path, progress: Progress, additions: Additions = AS_TRAINED) -> dict[str, Any]:
    """Write the best epoch of a run as an encoder.

    Args:
        folder: of a run with a judged epoch.
        out: folder of the encoder, whose parent is there; one that is there is replaced.
        progress: shows how far it is.
        additions: to the head that it was trained with.

    Returns:
        The manifest as written.

    Raises:
        TrainingProblem: if the run has no best epoch yet, its data are gone or others, it can't have that head, or
            `out` holds what is no encoder.
    """
    check_replaceable(out)
    plan = read_plan(folder.config)
    backbone, head = BACKBONES[plan.backbone], additions.to(plan.head)
    photos = learnable(read_photos(Path(plan.data), columns_of(plan)))
    check_data(folder, photos.fingerprint(fingerprint(photos.paths)))
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        weights = Path(scratch) / WEIGHTS

        def encoder_with(model: torch.nn.Module, head: Head) -> TorchEncoder:
            write_weights(model, weights)
            return TorchEncoder(manifest_of(plan, head, weights), model)

        def embedded(encoder: TorchEncoder, rows: np.ndarray, step: str) -> tuple[np.ndarray, np.ndarray]:
            task = progress.add_task(step, total=len(rows))
            return embed_photos(encoder, photos, rows, lambda done, _: progress.update(task, completed=done))

        model, epoch = best_model(folder, plan)
        if head != plan.head:
            learned = np.empty((0, 0), np.float32)
            if head.whitened is not None:
                trained_with = encoder_with(model, plan.head)
                known, rows = embedded(trained_with, photos.rows_of("train"), "Embedding train to whiten")
                learned = known[rows]
            model = with_head(backbone, plan.head, head, model.state_dict(), learned)
        encoder = encoder_with(model, head)
        manifest = encoder.manifest
        embeddings, readable = embedded(encoder, np.arange(len(photos)), "Embedding train and val")
        train, val = (readable_rows(photos, split, readable) for split in ("train", "val"))
        found = search(photos, embeddings, val, train)
        figures = {name: vars(interval(values)) for name, values in found.figures().items()}
        statistics, centroids = class_statistics(embeddings[train], photos.values[photos.label][train])
        about = folder.about()
        trained = {
            "label": plan.label,
            "attributes": plan.attributes,
            "data_fingerprint": about["data_fingerprint"],
            "revision": about["revision"],
            "epoch": epoch,
            "val": {name: round(figure["mean"], 4) for name, figure in figures.items()},
            "score_meaning": calibrate_scores(found),
        }
        metrics = {"plan": plan.to_dict(), "val": figures, "epochs": list(folder.figures())}

        def write(aside: Path) -> None:
            (aside / WEIGHTS).write_bytes(weights.read_bytes())
            write_knowledge(aside, statistics, centroids)
            (aside / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")

        return save_encoder(out, manifest | {"trained": trained}, write)


def check_replaceable(out: Path) -> None:
    """Refuse to write an encoder where something else is.

    Raises:
        TrainingProblem: if the folder holds something, and no encoder.
    """
    if out.exists() and not (out / MANIFEST).exists() and (out.is_file() or any(out.iterdir())):
        raise TrainingProblem(f"{out} is there already and holds no encoder. Name another folder with --out.")


def best_model(folder: RunFolder, plan: Plan) -> tuple[torch.nn.Module, int]:
    """Return the network of a run with the weights of its best epoch, and that epoch.

    Raises:
        TrainingProblem: if the run has no best epoch yet, or its weights are of another architecture.
    """
    best = load_checkpoint(folder.best)
    model = BACKBONES[plan.backbone].build_with(plan.head)
    fit_model(model, best["model"], folder.best)
    return model, int(best["figures"]["epoch"])


def write_weights(model: torch.nn.Module, path: Path) -> None:
    """Write the weights of a model under their names."""
    from safetensors.torch import save

    path.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def manifest_of(plan: Plan, head: Head, weights: Path) -> dict[str, Any]:
    """Return the manifest that `load_encoder` needs."""
    transform = transform_of(plan)
    identity = encoder_id(plan.backbone, weights, transform, head)
    return {
        "id": identity,
        "base_id": identity,
        "backbone": plan.backbone,
        "runtime": "torch",
        "dim": head.length(BACKBONES[plan.backbone].dim),
        "transform": transform.to_dict(),
        "head": head.to_dict(),
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the encoder.  [default: RUN/encoder]")
@click.option("--whiten", type=int, metavar="NUMBERS", help="Whiten embeddings to so many numbers, learned from train.")
@click.option("--prefix", type=int, metavar="NUMBERS", help="Keep the first numbers of an embedding only.")
@click.option("--flip", is_flag=True, help="Embed the mirror image as well: twice the work.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
def main(run: Path, out: Path | None, whiten: int | None, prefix: int | None, flip: bool, threads: int) -> None:
    """Make an encoder folder of the best epoch of a run."""
    torch.set_num_threads(threads)
    console = Console(width=None if sys.stdout.isatty() else 160)
    out = out or run / "encoder"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
            manifest = export_run(RunFolder(run), out, progress, Additions(whiten, prefix, flip))
    except (TrainingProblem, EncoderUnavailable, OSError) as error:
        raise click.ClickException(str(error)) from error
    figures = ", ".join(f"{name} {value}" for name, value in manifest["trained"]["val"].items())
    console.print(f"Encoder {manifest['id']} in {out}\nOn val: {figures}", highlight=False, soft_wrap=True)
    console.print(
        f"Serve it: LOOKALIKE_ENCODER={manifest['backbone']} LOOKALIKE_ENCODER_WEIGHTS_PATH={out} "
        "python -m worker.build_release --no-activate",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
