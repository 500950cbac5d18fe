"""Curves of a run, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.files import writing_aside

PANELS = (
    ("Loss", ("loss",)),
    ("Batches", ("active_triplets", "spread", "hardest_positive", "hardest_negative")),
    ("Precision on val", ("p_at_1", "p_at_5", "p_at_10", "colour_at_5")),
)


def plot_run(figures: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the figures of all epochs; panels that nothing is known for stay empty.

    Args:
        figures: of each epoch, as the loop gives them.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    picture = Figure(figsize=(13, 4), layout="constrained")
    for axes, (title, names) in zip(picture.subplots(1, len(PANELS)), PANELS, strict=True):
        for name in names:
            points = [(line["epoch"], line[name]) for line in figures if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set(title=title, xlabel="epoch")
        if axes.lines:
            axes.legend()
    with writing_aside(path) as aside:
        picture.savefig(aside, format="png", dpi=110)
