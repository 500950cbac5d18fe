"""A run from its plan: data, network, losses and loop put together."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.checkpoint import load_checkpoint, save_checkpoint
from training.inputs import Inputs
from training.labelled_photos import Columns, LabelledPhotos, read_photos
from training.learner import Learner, Shown, build_learner
from training.loop import Progress, train
from training.pixel_cache import Squares, decode_photos
from training.plan import Plan
from training.plots import plot_run
from training.problem import TrainingProblem
from training.retrieval import means, search
from training.run_folder import RunFolder
from training.teacher import taught_embeddings
from training.turns import Turns
from worker.encoder import BACKBONES, Transform

log = logging.getLogger(__name__)

JUDGED_PHOTOS = 64


def transform_of(plan: Plan) -> Transform:
    """Return the evaluation transform: the backbone's, at the plan's size."""
    own = BACKBONES[plan.backbone].transform
    if plan.size is None:
        return own
    return replace(own, size=plan.size, resize=round(plan.size * own.resize / own.size))


def columns_of(plan: Plan) -> Columns:
    """Return which columns say what."""
    return Columns(plan.item_column, plan.image_column, plan.label, tuple(plan.attributes), plan.split_column)


def run(
    plan: Plan,
    folder: RunFolder,
    cache: Path,
    *,
    resumes: bool,
    turns: Turns,
    device: torch.device,
    shown: Shown,
    said: Callable[[str], None],
    stop_after: int | None = None,
) -> Progress:
    """Train as planned, or go on with a run.

    Args:
        plan: what to do.
        folder: of the run.
        cache: folder of decoded photos and stored activations; may be deleted at any time.
        resumes: whether the run goes on from its checkpoint.
        turns: this process's part, where several train together.
        device: where to compute.
        shown: told how far each step is.
        said: told in a line what each epoch gave.
        stop_after: epochs of this call; None means all.

    Raises:
        TrainingProblem: for everything that a person can mend.
        EncoderUnavailable: the same of weights.
    """
    if not resumes and turns.leads:
        folder.check_new()
    torch.set_num_threads(plan.threads)
    photos = learnable(read_photos(Path(plan.data), columns_of(plan)))
    with turns.leader_first():
        squares = decode_photos(photos.paths, transform_of(plan), cache, shown("Decoding photos"))
    fingerprint = photos.fingerprint(squares.fingerprint)
    learned, judged = usable_rows(photos, squares)
    classes, names = number_classes(photos, learned)
    counts = {name: len(of) for name, of in names.items()}
    taught = None
    if plan.teacher is not None:
        told = shown("Asking the teacher")
        with turns.leader_first():
            taught = taught_embeddings(plan.teacher, photos, learned, squares.fingerprint, cache, plan.threads, told)
    with turns.leader_first():
        learner = build_learner(plan, squares, learned, classes, counts, cache, device, shown, taught)
    progress = Progress()
    if resumes:
        check_data(folder, fingerprint)
        progress = _go_on(folder, learner, turns, device)
    elif turns.leads:  # only now: what failed until here can be begun again by the same command
        left_out = {str(photos.paths[row]): why for row, why in squares.unreadable.items()}
        about = {"classes": names, "data_fingerprint": fingerprint, "photos": len(photos), "left_out": left_out}
        folder.begin(plan, about)

    def judge() -> dict[str, float]:
        with learner.judged():
            embeddings = embed_plain(learner.inputs, np.concatenate([learned, judged]), len(photos), plan, device)
        return means(search(photos, embeddings, judged, learned).figures())

    def on_step(step: int, steps: int, figures: dict[str, float]) -> None:
        if turns.leads:
            folder.add_step(progress.epoch + 1, step, figures)
        shown(f"Epoch {progress.epoch + 1} of {plan.epochs}, loss {figures['loss']:.3f}")(step, steps)

    def on_epoch(progress: Progress, is_best: bool) -> None:
        if not turns.leads:
            return
        if is_best:
            with learner.judged() as model:
                save_checkpoint(folder.best, {"model": model.state_dict(), "figures": progress.figures})
        figures = progress.figures
        folder.add(figures)
        save_checkpoint(folder.checkpoint, {"learner": learner.state(), "progress": vars(progress)})
        plot_run(folder.figures(), folder.plots)
        told = ", ".join(
            f"{name} {figures[name]:.4f}" for name in ("loss", "p_at_1", "p_at_5", "colour_at_5") if name in figures
        )
        said(f"Epoch {progress.epoch}: {told}, {figures['seconds']:.0f} s" + (", best so far" if is_best else ""))

    train(learner, plan, progress, judge, turns=turns, on_step=on_step, on_epoch=on_epoch, stop_after=stop_after)
    return progress


def learnable(photos: LabelledPhotos) -> LabelledPhotos:
    """Return the photos of train and val: those of test are for the last judgement only, and not even read."""
    return photos.only(photos.rows_of("train", "val"))


def usable_rows(photos: LabelledPhotos, squares: Squares) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to learn from and rows to judge by: readable, and of classes with two items to learn from.

    Raises:
        TrainingProblem: if too little is left.
    """
    is_readable = np.ones(len(photos), bool)
    is_readable[list(squares.unreadable)] = False
    labels = photos.values[photos.label]
    in_train = is_readable & (photos.splits == "train")
    values = np.unique(labels[in_train])
    items = Counter(label for label, _ in {(str(labels[row]), photos.items[row]) for row in np.flatnonzero(in_train)})
    lonely = np.array([value for value in values.tolist() if items[value] < 2], values.dtype)
    if len(lonely):
        log.warning(
            "%d classes have one item to learn from and are left out of training, not of evaluation: %s",
            len(lonely),
            ", ".join(lonely.tolist()),
        )
    learned = np.flatnonzero(in_train & ~np.isin(labels, lonely))
    judged = np.flatnonzero(is_readable & (photos.splits == "val"))
    if len(values) - len(lonely) < 2 or len(judged) == 0:
        raise TrainingProblem(
            "Training needs two classes with two items each whose photos can be read, and a photo in val; "
            f"{photos.label} has {len(values) - len(lonely)} such classes, val {len(judged)} photos."
        )
    return learned, judged


def number_classes(photos: LabelledPhotos, learned: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Return the class of each photo by column, -1 where nothing is learned of it, and the classes' names."""
    numbers: dict[str, np.ndarray] = {}
    names: dict[str, list[str]] = {}
    for column, values in photos.values.items():
        known = np.setdiff1d(values[learned], [""])
        numbers[column] = np.where(np.isin(values, known), np.searchsorted(known, values), -1)
        names[column] = known.tolist()
    return numbers, names


def embed_plain(inputs: Inputs, rows: np.ndarray, count: int, plan: Plan, device: torch.device) -> np.ndarray:
    """Embed photos as served ones are, float32 (count, dim); rows that are not asked for are 0."""
    parts = []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
        for some in np.array_split(rows, -(-len(rows) // JUDGED_PHOTOS)):
            parts.append(inputs.embed(inputs.plain(some).to(device)).float().cpu().numpy())
    embedded = np.concatenate(parts)
    embeddings = np.zeros((count, embedded.shape[1]), np.float32)
    embeddings[rows] = embedded
    return embeddings


def check_data(folder: RunFolder, fingerprint: str) -> None:
    """Refuse to go on with other photos or labels than a run was begun with.

    Raises:
        TrainingProblem: if they are others.
    """
    known = folder.about().get("data_fingerprint")
    if known != fingerprint:
        raise TrainingProblem(
            f"The photos, or what is said of them, are not those that {folder.path} was begun with: their fingerprint "
            f"was {known}, and is {fingerprint}. Bring them back, or begin a new run."
        )


def _go_on(folder: RunFolder, learner: Learner, turns: Turns, device: torch.device) -> Progress:
    progress = Progress()
    if folder.checkpoint.exists():
        state: dict[str, Any] = load_checkpoint(folder.checkpoint, device)
        try:
            learner.load(state["learner"], folder.checkpoint)
            progress = Progress(**state["progress"])
        except TrainingProblem:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingProblem(
                f"{folder.checkpoint} is no checkpoint of this run: {error}. Bring the run's own back, or train anew."
            ) from error
    else:
        log.warning("%s has no finished epoch yet: it begins anew", folder.path)
    if turns.leads:
        folder.forget_after(progress.epoch)
    return progress
