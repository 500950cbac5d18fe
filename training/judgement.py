"""The judgement of one encoder: what it finds, class by class, and what it costs."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from training.labelled_photos import LabelledPhotos
from training.metrics import Difference, Interval, interval, paired_difference
from training.problem import TrainingProblem
from training.retrieval import Found, search
from training.served import Cost, Told, cost_of, embed_photos
from worker.encoder import Encoder

WORST = 15
CONFUSIONS = 15


@dataclass(frozen=True)
class ClassFigures:
    """One class of the label.

    Attributes:
        name: of the class.
        queries: photos that asked.
        indexed: photos that could be found.
        p_at_5: Precision@5 of its queries.
        taken_for: the class that most of its wrong first hits have; empty if none is wrong.
    """

    name: str
    queries: int
    indexed: int
    p_at_5: float
    taken_for: str


@dataclass(frozen=True)
class Judgement:
    """What an encoder finds, and what it costs.

    Attributes:
        encoder: its id.
        runtime: what ran it.
        found: all that the figures are made of.
        embeddings: float32 (n, dim), of all photos.
        each: every figure of each query, by name.
        cost: on this machine.
    """

    encoder: str
    runtime: str
    found: Found
    embeddings: np.ndarray
    each: dict[str, np.ndarray]
    cost: Cost

    def intervals(self) -> dict[str, Interval]:
        """Return each figure with its 95% confidence interval."""
        return {name: interval(values) for name, values in self.each.items()}

    def classes(self) -> list[ClassFigures]:
        """Return the figures of each class that asked, the worst first."""
        photos = self.found.photos
        labels = photos.values[photos.label]
        asked, first = labels[self.found.queries], labels[self.found.neighbours[:, 0]]
        indexed = Counter(labels[self.found.index].tolist())
        rows = []
        for name in np.unique(asked):
            own = asked == name
            wrong = Counter(first[own & (first != name)].tolist())
            taken_for = wrong.most_common(1)[0][0] if wrong else ""
            precision = float(self.each["p_at_5"][own].mean())
            rows.append(ClassFigures(str(name), int(own.sum()), indexed[str(name)], precision, taken_for))
        return sorted(rows, key=lambda row: (row.p_at_5, row.name))

    def confusions(self) -> list[tuple[str, str, int]]:
        """Return the commonest pairs of a query's class and its first hit's other class, and how often."""
        photos = self.found.photos
        labels = photos.values[photos.label]
        pairs = zip(labels[self.found.queries].tolist(), labels[self.found.neighbours[:, 0]].tolist(), strict=True)
        return [(*pair, count) for pair, count in Counter(p for p in pairs if p[0] != p[1]).most_common(CONFUSIONS)]


def judge(
    encoder: Encoder,
    photos: LabelledPhotos,
    queries: np.ndarray,
    index: np.ndarray,
    told: Told = lambda *_: None,
    size_bytes: int = 0,
) -> Judgement:
    """Embed photos with an encoder and search.

    Args:
        encoder: of any runtime.
        photos: queries and index among them.
        queries: int64 (q,), rows to search with.
        index: int64 (n,), rows to search among.
        told: told how many are embedded, of how many.
        size_bytes: of the encoder's files.

    Raises:
        TrainingProblem: if no query, or no photo of the index, can be read.
    """
    embeddings, readable = embed_photos(encoder, photos, np.concatenate([index, queries]), told)
    asked, indexed = np.intersect1d(queries, readable), np.intersect1d(index, readable)
    if len(asked) == 0 or len(indexed) == 0:
        raise TrainingProblem(
            f"{len(asked)} of {len(queries)} queries and {len(indexed)} of {len(index)} photos of the index can be "
            "read. Check the column of images."
        )
    found = search(photos, embeddings, asked, indexed)
    cost = cost_of(encoder, [photos.paths[row] for row in found.queries], size_bytes)
    return Judgement(encoder.id, encoder.manifest["runtime"], found, embeddings, found.figures(), cost)


def compare(one: Judgement, other: Judgement) -> dict[str, Difference]:
    """Return how far one encoder's figures are above the other's on the same queries.

    Raises:
        ValueError: if they were not asked the same.
    """
    if not np.array_equal(one.found.queries, other.found.queries):
        raise ValueError("two encoders are compared on the same queries only")
    return {name: paired_difference(one.each[name], other.each[name]) for name in one.each}
