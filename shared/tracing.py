"""Whether there are traces: without LOOKALIKE_TRACES_URL we import nothing of OpenTelemetry."""

from typing import TYPE_CHECKING

from shared.settings import InvalidSettings, Settings

if TYPE_CHECKING:
    from shared.traces import Traces


def open_traces(settings: Settings, service: str) -> "Traces | None":
    """Begin to send traces, or return None where nobody wants them.

    Raises:
        InvalidSettings: as `check_tracing` does.
    """
    if settings.traces_url is None:
        return None
    check_tracing(settings)
    from shared.traces import Traces

    return Traces(settings.traces_url, service)


def check_tracing(settings: Settings) -> None:
    """Refuse to start where traces are wanted and can't be made.

    Raises:
        InvalidSettings: naming the remedy.
    """
    if settings.traces_url is None:
        return
    try:
        import shared.traces  # noqa: F401
    except ImportError as error:
        raise InvalidSettings(
            f"LOOKALIKE_TRACES_URL asks for traces, and {error.name} is not installed. Install it:\n"
            "  pip install --requirement requirements-traces.txt\n"
            "or leave LOOKALIKE_TRACES_URL unset."
        ) from error
