"""How long and how often things are measured."""

from dataclasses import dataclass

CLIENTS = (1, 8, 32)
MANY_CLIENTS = 200
IDENTICAL_UPLOADS = 100


@dataclass(frozen=True)
class Scale:
    """Lengths of a run.

    Attributes:
        photos: files that are searched with.
        items: products of the catalogue.
        calibration_items: imported first; the release is built from these.
        seconds: of a window.
        warmup_seconds: before the first window.
        repetitions: windows, of which the median counts.
        pairs: windows of two systems in turn, of which the median ratio counts.
        tries: most settings of a rival that are tried; 1: the most likely ones are taken.
        trial_seconds: of a try.
        starts: cold starts, of which the median counts.
        rebuilds: whether the release is built again from the whole catalogue, as an operator does.
    """

    photos: int = 600
    items: int = 8024
    calibration_items: int = 1000
    seconds: float = 5.0
    warmup_seconds: float = 2.0
    repetitions: int = 3
    pairs: int = 5
    tries: int = 6
    trial_seconds: float = 3.0
    starts: int = 3
    rebuilds: bool = True


FULL = Scale()
QUICK = Scale(
    photos=100,
    items=1500,
    calibration_items=400,
    seconds=1.5,
    warmup_seconds=0.7,
    repetitions=1,
    pairs=1,
    tries=1,
    starts=1,
    rebuilds=False,
)
