"""How far a long job is, with its rate and the time that it will still take."""

from shared.schemas import Progress


def progress_after(
    seconds: float, done: int, total: int | None, *, failed: int = 0, step: str | None = None
) -> Progress:
    """Return the progress of work that has taken so many seconds.

    Args:
        seconds: since it began.
        done: how many of its parts are done, those that failed included.
        total: how many there are; None: unknown.
        failed: how many failed.
        step: what is being done, where a job has several steps.
    """
    rate = done / seconds if seconds > 0 else None
    return Progress(
        step=step,
        done=done,
        failed=failed,
        total=total,
        rate_per_second=round(rate, 2) if rate else None,
        eta_seconds=round((total - done) / rate, 1) if rate and total is not None else None,
    )
