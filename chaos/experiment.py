"""The shape of every experiment."""

from collections.abc import Callable
from dataclasses import dataclass

from chaos.trial import Trial


@dataclass(frozen=True)
class Experiment:
    """Something that is broken on purpose.

    Attributes:
        name: by which it is chosen.
        done: what is done, in a sentence.
        checked: what must hold, besides that no job is lost and none has two outcomes.
        run: does it; the fault has ended when it returns.
        needs_disk: whether it needs the data on a file system of its own.
        needs_replica: whether Redis has a replica that takes over; such experiments have a system of their own.
        loses_jobs: whether jobs may be gone, if clients are told so.
    """

    name: str
    done: str
    checked: str
    run: Callable[[Trial], None]
    needs_disk: bool = False
    needs_replica: bool = False
    loses_jobs: bool = False
