"""One run of the demo, from nothing to an answer."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from client.api import Api
from client.output import plain
from client.problems import ApiError
from demo.photo import Photo, photo_of_catalogue, photo_of_file
from demo.processes import ProcessGroup
from demo.scenario import DemoFailed, import_catalogue, print_addresses, search
from demo.state import CatalogueState, catalogue_folder, webhook_secret
from shared.settings import Settings, load_settings, variable_name

ROOT = Path(__file__).resolve().parent.parent
DEMO_FOLDER = ROOT / "var" / "demo"
SAMPLE_FOLDER = DEMO_FOLDER / "sample"


@dataclass(frozen=True)
class _Subject:
    """What the demo imports and what it searches with."""

    catalogue: Path
    photo: Photo
    state_folder: Path
    is_sample: bool


def run_demo(console: Console, *, once: bool, catalog: Path | None, port: int) -> None:
    """Start everything, import, search, print; then stay up until Ctrl-C, unless `once`.

    Args:
        console: where to print.
        once: end after the answer.
        catalog: catalogue file; None means the sample.
        port: where web listens.

    Raises:
        DemoFailed, ProcessFailed and others: whose text says what happened and which log to read.
        KeyboardInterrupt: if Ctrl-C came before the answer.
    """
    began = time.monotonic()
    settings = load_settings()
    subject = _own_catalogue(catalog.resolve()) if catalog else _sample()
    group = _process_group(settings, subject, port)
    logs = _short(subject.state_folder / "logs")
    try:
        with console.status("Starting redis, web, search, bulk, callbacks and beat (first time: up to a minute)"):
            group.start()
        console.print(f"Everything is up after {time.monotonic() - began:.1f} s")
        api = Api(group.base_url)
        _import(api, settings, subject, console)
        search(api, subject.photo, console)
        console.print(f"{time.monotonic() - began:.1f} s in all", style="dim")
        print_addresses(api, subject.photo, logs, console)
        if not once:
            _stay_up(group, console)
    except ApiError as error:
        group.require_alive()  # a dead process explains the failure better
        raise DemoFailed(f"{error}\nThe logs are in {logs}/") from error
    except DemoFailed as error:
        raise DemoFailed(f"{error}\nThe logs are in {logs}/") from error
    finally:
        with console.status("Stopping everything that was started"):
            group.stop()


def _sample() -> _Subject:
    # A process of its own: drawing needs Pillow, which nothing else here does.
    command = [sys.executable, "-m", "training.sample_catalogue", "--out", str(SAMPLE_FOLDER)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise DemoFailed(f"The sample catalogue could not be drawn: {' '.join(command[1:])}")
    photo = photo_of_file(SAMPLE_FOLDER / "photo.jpg")
    return _Subject(SAMPLE_FOLDER / "products.csv", photo, DEMO_FOLDER / "sample-state", is_sample=True)


def _own_catalogue(catalogue: Path) -> _Subject:
    folder = catalogue_folder(DEMO_FOLDER, catalogue)
    return _Subject(catalogue, photo_of_catalogue(catalogue), folder, is_sample=False)


def _process_group(settings: Settings, subject: _Subject, port: int) -> ProcessGroup:
    """Describe the processes; what the environment or .env sets goes before what the demo would choose."""
    state = subject.state_folder
    chosen = {
        "database_url": f"sqlite:///{state / 'catalogue.sqlite3'}",
        "store_url": str(state / "store"),
        "webhook_secret": webhook_secret(DEMO_FOLDER / "webhook-secret"),
        # Everything listens on loopback alone, and so does a receiver of callbacks that somebody tries out.
        "allow_private_urls": "true",
    }
    environment = {
        variable_name(field): value for field, value in chosen.items() if field not in settings.model_fields_set
    }
    if not subject.is_sample:
        environment[variable_name("import_root")] = str(subject.catalogue.parent)
    redis_url = settings.redis_url if "redis_url" in settings.model_fields_set else None
    return ProcessGroup(ROOT, state, environment=environment, redis_url=redis_url, port=port)


def _import(api: Api, settings: Settings, subject: _Subject, console: Console) -> None:
    """Import the sample, packed and uploaded, or an own catalogue, which the server reads where it lies."""
    if subject.is_sample:
        import_catalogue(api, subject.catalogue, console)
        return
    own_database = "own" if "database_url" not in settings.model_fields_set else settings.database_url
    state = CatalogueState(subject.state_folder, own_database)
    if state.was_imported(subject.catalogue) and api.has_items():
        console.print(
            plain(f"Not imported again: {_short(subject.catalogue)} has not changed since an earlier run did"),
            soft_wrap=True,
        )
        return
    rows_left_out = import_catalogue(api, subject.catalogue, console, server_path=subject.catalogue.name)
    if not rows_left_out:  # else the missing photos may be there the next time, with the file unchanged
        state.remember_import(subject.catalogue)


def _stay_up(group: ProcessGroup, console: Console) -> None:
    console.print("Everything stays up until Ctrl-C.")
    try:
        group.wait()
    except KeyboardInterrupt:
        console.print()


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
