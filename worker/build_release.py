"""Build a release from the catalogue: choose the runtime, embed all images, calibrate similar hits, activate it.

    python -m worker.build_release [--label ATTRIBUTE] [--runtime RUNTIME] [--no-activate] [--fresh]
        [--recall-target SHARE] [--memory-budget BYTES] [--index FACTORY]
    python -m worker.build_release --use RELEASE      go back to a release, or activate one that was built before

It may run while everything else does, at low priority. Stopped at any point, it leaves the active release as it was,
and goes on from there when it is started again.
"""

import logging
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.settings import Settings, load_settings
from shared.store import Store
from worker.background import step_back

if TYPE_CHECKING:
    from worker.releases.build import Built, Wishes

PIPED_WIDTH = 160  # columns where the output is not a terminal
SAID_SECONDS = 10


class Steps:
    """One line for each step: on a terminal with a bar, elsewhere as plain lines that a log can hold."""

    def __init__(self, console: Console, bars: Progress) -> None:
        self._console = console
        self._bars = bars
        self._step = ""
        self._task: TaskID | None = None
        self._said = 0.0

    def show(self, step: str, done: int, total: int | None) -> None:
        """Show how far a step is; a new one ends the one before."""
        is_new = step != self._step
        if is_new:
            self.end()
            self._step, self._task = step, self._bars.add_task(step, total=total)
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)
        if self._bars.disable and (is_new or monotonic() > self._said + SAID_SECONDS):
            self._said = monotonic()
            self._console.print(step + (f": {done} of {total}" if total else ""), highlight=False)

    def end(self) -> None:
        """Show the present step as done."""
        if self._task is not None:
            task = next(task for task in self._bars.tasks if task.id == self._task)
            self._bars.update(self._task, total=task.total or 1, completed=task.total or 1)
            self._task = None


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--label", help="String attribute that tells which images belong together; default: chosen by itself.")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "openvino-int8", "openvino", "torch"]),
    help="What shall run the network; default: LOOKALIKE_ENCODER_RUNTIME.",
)
@click.option(
    "--recall-target",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the ten most similar images to be found; 1: exact.  [default: 1; of many images 0.99]",
)
@click.option("--memory-budget", type=click.IntRange(1), metavar="BYTES", help="Most memory that the index may keep.")
@click.option("--index", "factory", metavar="FACTORY", help="FAISS's description of the index, such as IVF256,SQ8.")
@click.option("--activate/--no-activate", "activates", default=True, help="Let searches use it.  [default: activate]")
@click.option("--fresh", is_flag=True, help="Start anew, even if an interrupted build could go on.")
@click.option("--use", "release_id", metavar="RELEASE", help="Only activate a release that was built before.")
def build_release(
    label: str | None,
    runtime: Any,
    recall_target: float | None,
    memory_budget: int | None,
    factory: str | None,
    activates: bool,
    fresh: bool,
    release_id: str | None,
) -> None:
    """Build a release of the encoder that the settings name, from the images of the catalogue."""
    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    settings = load_settings()
    catalogue = Catalogue(connect_database(settings.database_url))
    from shared.errors import ReleaseNotBuilt
    from worker.encoder import EncoderUnavailable

    try:
        if release_id is not None:
            _use(catalogue, release_id)
            console.print(f"Release {release_id} is active now.", highlight=False)
            return
        step_back()
        from worker.index.recipe import wished
        from worker.releases.build import Wishes

        recipe = wished(recall_target, memory_budget, factory)
        wishes = Wishes(runtime or settings.encoder_runtime, label, recipe, activates, not fresh)
        built = _build(console, catalogue, settings, wishes)
    except (EncoderUnavailable, ReleaseNotBuilt) as error:
        raise click.ClickException(str(error)) from error
    except SQLAlchemyError as error:
        problem = getattr(error, "orig", None) or error
        raise click.ClickException(
            f"The catalogue database does not do what is needed: {problem}. Is DATABASE_URL right, and was "
            "`python -m shared.migrations` run? What was embedded is kept."
        ) from error
    except OSError as error:
        raise click.ClickException(
            f"A file can't be read or written: {error}. Check LOOKALIKE_STORE_URL and LOOKALIKE_ENCODER_CACHE_PATH. "
            "What was embedded is kept."
        ) from error
    except KeyboardInterrupt:
        raise click.ClickException("Stopped; the active release is as it was. Run it again to go on.") from None
    _summarise(console, built, activates)


def _use(catalogue: Catalogue, release_id: str) -> None:
    from shared.releases import choose_release, registered_releases

    usable = {release.id: release for release in registered_releases(catalogue) if release.is_finished}
    if release_id not in usable:
        known = ", ".join(usable) or "none"
        raise click.ClickException(f"There is no finished release {release_id!r}; there are: {known}.")
    choose_release(catalogue, usable[release_id])


def _build(console: Console, catalogue: Catalogue, settings: Settings, wishes: "Wishes") -> "Built":
    from worker.releases.build import ReleaseBuilder

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        steps = Steps(console, bars)
        builder = ReleaseBuilder(catalogue, Store(settings.store_url), settings, steps.show)
        built = builder.build(wishes)
        steps.end()
    return built


def _summarise(console: Console, built: "Built", is_active: bool) -> None:
    release, manifest = built.release, built.release.manifest
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("runtime", "passed", "mean cosine", "least cosine", "Precision@5", "images/s", "why not"):
        table.add_column(column, justify="left" if column in ("runtime", "why not") else "right")
    for trial in manifest["encoder"]["gate"]["tried"]:
        accuracy = trial["accuracy"] or {}
        figures = [_figure(accuracy.get("mean_cosine"), "{:.4f}"), _figure(accuracy.get("min_cosine"), "{:.4f}")]
        figures += [_precision(accuracy), _figure(trial["images_per_second"], "{:.0f}")]
        table.add_row(trial["runtime"], "yes" if trial["passed"] else "no", *figures, trial["reason"])
    console.print(table)
    source, similar = manifest["built_from"], manifest["similar"]
    rows = {
        "release": release.id,
        "runs on": release.runtime,
        "measured with": f"{source['calibration_images']} + {source['held_out_images']} of {source['images']} images, "
        + (
            f"labels: {source['label']}" if source["label"] else "no attribute suits as label: Precision@5 not measured"
        ),
        "similar hits": f"from cosine {similar['min_cosine']}" + _kept(similar),
        "index": _index(manifest["index"]),
        "embedded": f"{built.embedded} images",
        "compared": _compared(manifest["comparison"]),
        "seconds": ", ".join(f"{step} {seconds:.1f}" for step, seconds in built.seconds.items()),
        "active": "yes" if is_active else f"no; activate it: python -m worker.build_release --use {release.id}",
    }
    for name, value in rows.items():
        console.print(f"{name:>13}: {value}", markup=False, highlight=False)


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _precision(accuracy: dict[str, Any]) -> str:
    if accuracy.get("precision") is None:
        return "not measured" if accuracy else ""
    return f"{accuracy['precision']:.4f} (torch {accuracy['reference_precision']:.4f})"


def _index(index: dict[str, Any]) -> str:
    if "measured" not in index:
        return "exact"
    measured = index["measured"]
    return (
        f"{index['factory']}, recall@10 {measured['recall_at_10']:.4f}, {measured['p50_ms']:.2f} ms, "
        f"{measured['bytes_per_row']:.0f} bytes an image"
    )


def _compared(comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return "not: no release of another encoder is active with enough images of both"
    told = (
        f"with {comparison['with']}: {10 * comparison['agreement_at_10']:.1f} of 10 hits are the same, "
        f"{comparison['queries']} queries among {comparison['images']} images"
    )
    if "gain" not in comparison:
        return told
    low, high = comparison["gain_interval_95"]
    return (
        f"{told}; Precision@5 of {comparison['label']} {comparison['precision_at_5']:.4f} for "
        f"{comparison['active_precision_at_5']:.4f}, gain {comparison['gain']:+.4f} [{low:+.4f}, {high:+.4f}]"
    )


def _kept(similar: dict[str, Any]) -> str:
    at = next((row for row in similar["table"] if row["cosine"] == similar["min_cosine"]), None)
    return f" ({similar['how']})" if at is None else f", which keep {10 * at['mean_overlap']:.1f} of 10"


if __name__ == "__main__":
    build_release()
