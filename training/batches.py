"""Batches of P classes with K photos each, so that every photo of a batch has others of its class beside it."""

from collections.abc import Sequence

import numpy as np


def class_batches(labels: np.ndarray, classes: int, photos: int, random: np.random.Generator) -> Sequence[np.ndarray]:
    """Deal the photos of one epoch into batches of P x K (Hermans et al., "In Defense of the Triplet Loss", 2017).

    Each class is cut into groups of K, its last group filled up with photos of the same class. The groups are dealt
    class by class to the batches in turn, like cards, so each photo is seen once an epoch or, to fill a group, a few
    times; a class is in one batch twice only where it has more groups than there are batches.

    Args:
        labels: int64 (n,), the class of each photo; classes with one photo only are not for here.
        classes: P, groups of a batch, >= 2.
        photos: K, photos of a group, >= 2.
        random: decides the order.

    Returns:
        Batches of rows, int64 (m,); m is P x K, or K less in some.

    Raises:
        ValueError: if there are fewer than two classes, or P or K is below 2.
    """
    known = np.unique(labels)
    if classes < 2 or photos < 2 or len(known) < 2:
        raise ValueError(f"P x K batches need two classes and P, K >= 2, not {len(known)}, {classes} x {photos}")
    groups = [group for label in random.permutation(known) for group in _groups(labels, label, photos, random)]
    count = -(-len(groups) // classes)
    batches = [np.concatenate(groups[start::count]) for start in range(count)]
    return [batches[index] for index in random.permutation(count)]


def _groups(labels: np.ndarray, label: int, photos: int, random: np.random.Generator) -> list[np.ndarray]:
    rows = random.permutation(np.flatnonzero(labels == label))
    missing = -len(rows) % photos
    whole = np.concatenate([rows, np.resize(rows, missing)]) if missing else rows
    return np.split(whole, len(whole) // photos)
