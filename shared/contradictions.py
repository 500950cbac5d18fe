"""Settings that are each fine and can't hold together.

A step must end before it is taken for hung, a dead worker's job must come to another one before its deadline, and
nothing may be due after its record is gone. docs/decisions/0027-delivery.md shows all limits in their order.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.settings import Settings

BACKOFF_MAX_SECONDS = 3600.0  # longest wait between two tries of a callback

# Pairs of which the first must be less than the second, and what would happen else.
_ORDER = (
    ("fetch_timeout_seconds", "search_deadline_seconds", "a slow host alone makes a search by URL fail as too late"),
    ("job_lease_seconds", "search_deadline_seconds", "a search whose worker died is too late before it is run again"),
    ("search_deadline_seconds", "job_ttl_seconds", "a search that waits is forgotten before it has failed"),
    (
        "fetch_timeout_seconds",
        "job_step_max_seconds",
        "a slow host alone makes an import's worker take itself for hung",
    ),
    ("job_lease_seconds", "job_step_max_seconds", "a step is taken for hung before its lease was renewed once"),
)


def contradictions(settings: "Settings", variable_name: Callable[[str], str]) -> list[str]:
    """Return which settings can't hold together, each with the names and values of all of them.

    Args:
        settings: each in its own range.
        variable_name: returns the variable that sets a field.
    """

    def told(*fields: str) -> str:
        return ", ".join(f"{variable_name(field)} = {getattr(settings, field):.15g}" for field in fields)

    found = [
        f"{told(shorter, longer)}: the first must be less, else {reason}."
        for shorter, longer, reason in _ORDER
        if getattr(settings, shorter) >= getattr(settings, longer)
    ]
    tries, wait = settings.webhook_max_attempts, settings.webhook_backoff_seconds
    seconds = tries * settings.webhook_timeout_seconds
    seconds += sum(min(wait * 2.0**number, BACKOFF_MAX_SECONDS) for number in range(tries - 1))
    if seconds > settings.job_ttl_seconds:
        names = told("webhook_max_attempts", "webhook_backoff_seconds", "webhook_timeout_seconds", "job_ttl_seconds")
        found.append(f"{names}: the tries of a callback may take {seconds:.0f} s, and its job would be gone before.")
    if settings.webhook_secret_previous is not None and settings.webhook_secret is None:
        names = " and ".join(map(variable_name, ("webhook_secret_previous", "webhook_secret")))
        found.append(f"{names}: the first is set and the second is not, so that there are no callbacks to sign.")
    return found
