"""Builds an approximate index in a folder: vectors in half precision, structure, ids; tuned on rows held out."""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from worker.index.approximate_index import ApproximateIndex
from worker.index.arguments import FULL_PLAN, BuildArguments, QueryArguments
from worker.index.half_vectors import HalfVectors, HalfVectorsWriter
from worker.index.kinds import KINDS, ROW_BYTES
from worker.index.recipe import IndexRecipe, RecallNotReached
from worker.index.structure import Structure
from worker.index.tuning import Tuned, Tuning
from worker.index.vector_index import Hashes, Page, Rows, Vectors

log = logging.getLogger(__name__)

STRUCTURE, HALVES = "structure.faiss", "vectors.npy"
HELD_OUT_ROWS, HELD_OUT_SHARE = 1000, 0.1
TRAINING_ROWS, TRAINING_ROWS_A_LIST = 20_000, 64
ADDED_ROWS = 10_000


@dataclass(frozen=True)
class Built:
    """What was built, besides the files.

    Attributes:
        rows: int64 (n,), in the order of the structure.
        hashes: uint8 (n, 32), of their images.
        starts: int64 (vectors + 1,), where the rows of each vector begin.
        described: JSON values for a manifest: kind, factory, arguments, plan, and what was measured.
    """

    rows: Rows
    hashes: Hashes
    starts: Rows
    described: dict[str, Any]


@dataclass(frozen=True)
class _Trial:
    """A kind that was built and tuned on all rows but the held out."""

    kind: str
    structure: Structure
    tuned: Tuned
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} {self.tuned.measured.recall_at_10:.4f}"


class BaseBuilder:
    """Builds one index by a recipe."""

    def __init__(self, folder: Path, dim: int, recipe: IndexRecipe, progress: Callable[[str], None] = log.info) -> None:
        """Args:
        folder: where the files go; there and empty.
        dim: length of an embedding.
        recipe: not an exact one.
        progress: told each step.
        """
        self._folder = folder
        self._dim = dim
        self._recipe = recipe
        self._progress = progress

    def build(self, pages: Iterable[Page], expected_rows: int, queries: Vectors | None = None) -> Built:
        """Write STRUCTURE and HALVES.

        Args:
            pages: all rows.
            expected_rows: about how many these are.
            queries: float32 (q, dim), unit rows, to tune with; None holds rows out for that.

        Raises:
            RecallNotReached: if no kind that may be built reaches the recipe's target; the message tells the remedy.
            ValueError: if FAISS can't build the recipe's factory.
            OSError: if a file can't be written.
        """
        started = perf_counter()
        share = 0.0 if queries is not None else min(HELD_OUT_SHARE, HELD_OUT_ROWS / max(1, expected_rows))
        rows, hashes, starts, held_out = self._write_vectors(pages, share)
        queries = held_out if queries is None else queries
        stored = HalfVectors.mapped(self._folder / HALVES)
        rest = stored.first(len(stored) - len(held_out))
        trial = self._choose(rest, queries)
        self._progress("Choosing the way of filtered searches")
        tuning = Tuning(_opened(trial.structure, rest), rest, queries)
        plan, filters = tuning.plan_filters(trial.tuned.arguments, self._recipe.recall_target)
        trial.structure.add([held_out])
        path = self._folder / STRUCTURE
        trial.structure.save(path)
        described = {
            "kind": trial.kind,
            "factory": trial.structure.factory,
            "arguments": trial.tuned.arguments.to_dict(),
            "plan": plan.to_dict(),
            "measured": {
                **trial.tuned.measured.to_dict(),
                "queries": len(queries),
                "rows": len(rows),
                "vectors": len(stored),
                "bytes_per_row": round(path.stat().st_size / len(rows) + ROW_BYTES, 1),
                "build_seconds": round(perf_counter() - started, 1),
            },
            "filters": filters,
        }
        return Built(rows, hashes, starts, described)

    def _write_vectors(self, pages: Iterable[Page], share: float) -> tuple[Rows, Hashes, Rows, Vectors]:
        """Write each image's vector once; those of a share of images, drawn by chance, are held out and come last.

        Returns:
            Rows and hashes in the order of the vectors, where the rows of each vector begin, the held out vectors.
        """
        random = np.random.default_rng(0)
        known: dict[bytes, int] = {}  # by hash, in the order in which they were first seen
        held: list[Vectors] = []
        is_held: list[np.ndarray] = []
        all_rows, all_hashes, all_vectors = [], [], []
        with HalfVectorsWriter(self._folder / HALVES, self._dim) as file:
            for rows, hashes, vectors in pages:
                first = len(known)
                of_rows = np.array([known.setdefault(sha256.tobytes(), len(known)) for sha256 in hashes], np.int64)
                is_new = np.isin(of_rows, np.arange(first, len(known)))
                is_new[is_new] = np.diff(of_rows[is_new], prepend=first - 1) > 0  # of copies on a page, the first
                chosen = random.random(len(known) - first) < share
                held.append(vectors[is_new][chosen])
                is_held.append(chosen)
                file.write(vectors[is_new][~chosen])
                all_rows.append(rows)
                all_hashes.append(hashes)
                all_vectors.append(of_rows)
            for vectors in held:
                file.write(vectors)
        return *_grouped(all_rows, all_hashes, all_vectors, np.concatenate(is_held)), np.concatenate(held)

    def _choose(self, stored: HalfVectors, queries: Vectors) -> _Trial:
        """Return the first kind, in the order of speed, that fits the budget and reaches the target."""
        recipe, trials = self._recipe, list[_Trial]()
        factories = {"own": recipe.factory} if recipe.factory else self._affordable(len(stored))
        for kind, factory in factories.items():
            trial = self._try(kind, factory, stored, queries)
            if trial.tuned.reaches(recipe.recall_target):
                return trial
            trials.append(trial)
        raise RecallNotReached(self._refusal(trials, len(stored)))

    def _affordable(self, rows: int) -> dict[str, str]:
        """Return the factories of the kinds that fit the memory budget, the fastest first."""
        budget = self._recipe.memory_budget_bytes
        fitting = [
            kind
            for kind in KINDS.values()
            if kind.is_chosen and (budget is None or kind.bytes_for(rows, self._dim) <= budget)
        ]
        if not fitting:
            least = min(kind.bytes_for(rows, self._dim) for kind in KINDS.values() if kind.is_chosen)
            raise RecallNotReached(
                f"No kind of index keeps {rows} rows in {budget} bytes. The smallest takes {least}: raise "
                "--memory-budget to that."
            )
        return {kind.name: kind.factory(rows, self._dim) for kind in fitting}

    def _try(self, kind: str, factory: str, stored: HalfVectors, queries: Vectors) -> _Trial:
        started = perf_counter()
        self._progress(f"Building {factory} of {len(stored)} rows")
        sample = np.random.default_rng(0).permutation(len(stored))[: training_rows(factory)]
        structure = Structure.trained(BuildArguments(factory), stored.at(np.sort(sample)))
        structure.add(stored.at(slice(start, start + ADDED_ROWS)) for start in range(0, len(stored), ADDED_ROWS))
        seconds = perf_counter() - started
        self._progress(f"Tuning {factory}")
        tuning = Tuning(_opened(structure, stored), stored, queries)
        tuned = tuning.tune(self._recipe.recall_target)
        return _Trial(kind, structure, tuned, seconds)

    def _refusal(self, trials: list[_Trial], rows: int) -> str:
        """Say what was measured and what would reach the target."""
        target, best = self._recipe.recall_target, max(trials, key=lambda trial: trial.tuned.measured.recall_at_10)
        measured = best.tuned.measured
        reached = f"{measured.recall_at_10:.4f}, standard error {measured.recall_error:.4f}"
        tried = {trial.kind for trial in trials}
        more = min(
            (kind.bytes_for(rows, self._dim) for kind in KINDS.values() if kind.is_chosen and kind.name not in tried),
            default=None,
        )
        remedies = [f"--recall-target {max(0.01, measured.recall_at_10 - measured.recall_error) // 0.001 / 1000}"]
        if self._recipe.factory:
            remedies.append("no --index, so that the kind is chosen")
        elif more:
            remedies.append(f"--memory-budget {more} or more")
        remedies.append("--index Flat, which is exact")
        return (
            f"recall@10 {target} is not reached: of {', '.join(map(str, trials))}, {best.structure.factory} finds most "
            f"({reached}). What would do: {'; '.join(remedies)}."
        )


def training_rows(factory: str) -> int:
    """Return from how many rows to learn codes and lists."""
    lists = re.search(r"IVF(\d+)", factory)
    return max(TRAINING_ROWS, TRAINING_ROWS_A_LIST * int(lists[1]) if lists else 0)


def _opened(structure: Structure, stored: HalfVectors) -> ApproximateIndex:
    """Return an index to be tuned, whose rows are the positions."""
    return ApproximateIndex(structure, stored, np.arange(len(stored)), QueryArguments(effort=1), FULL_PLAN)


def _grouped(
    rows: list[Rows], hashes: list[Hashes], vectors: list[Rows], is_held: np.ndarray
) -> tuple[Rows, Hashes, Rows]:
    """Return rows and hashes in the order of the written vectors, and where those of each vector begin.

    Args:
        rows: int64 (m,) of each page.
        hashes: uint8 (m, 32).
        vectors: int64 (m,), numbers of their vectors, in the order in which these were first seen.
        is_held: bool (v,), which vectors were written after all the others.
    """
    written = np.empty(len(is_held), np.int64)
    written[np.argsort(is_held, kind="stable")] = np.arange(len(is_held))
    of_rows = written[np.concatenate(vectors)]
    order = np.lexsort((np.concatenate(rows), of_rows))
    starts = np.searchsorted(of_rows[order], np.arange(len(is_held) + 1))
    return np.concatenate(rows)[order], np.concatenate(hashes)[order], starts
