"""Train an encoder.

    python -m training.train --data ../shared/datasets/fashion --out var/training/first
    python -m training.train --resume var/training/first     go on after Ctrl-C, a crash, or --stop-after
    torchrun --nproc-per-node 2 -m training.train ...        several GPUs

Then `python -m training.export` makes an encoder of the run. docs/training.md tells what to choose.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.bars import Bars
from training.plan import Plan, read_plan
from training.problem import TrainingProblem

CACHE = Path("var/training/cache")
PIPED_WIDTH = 160  # columns where the output is not a terminal


def weights_of(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    """Turn NAME or NAME=WEIGHT into weights by name."""
    weights = {}
    for text in given:
        name, _equals, weight = text.partition("=")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not NAME or NAME=WEIGHT") from None
    return weights


def option(name: str, help_text: str, **how: Any) -> Callable[[Any], Any]:
    """Return an option of the plan; its default is the plan's."""
    field = name.strip("-").replace("-", "_")
    default = vars(Plan(""))[how.pop("field", field)]
    shows = default not in (None, (), 0, {}) and "callback" not in how
    return click.option(
        name, field, default=None if "callback" in how else default, show_default=shows, help=help_text, **how
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--data", type=click.Path(path_type=Path), help="CSV file, folder with products.csv, or folder per class."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the new run.")
@click.option("--resume", type=click.Path(path_type=Path), help="Folder of a run to go on with; its plan counts.")
@click.option("--stop-after", type=int, help="End after so many epochs; --resume goes on.")
@click.option("--cache", type=click.Path(path_type=Path), default=CACHE, show_default=True, help="Decoded photos.")
@option("--label", "Column that retrieval is judged by.")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    callback=weights_of,
    metavar="COLUMN[=WEIGHT]",
    help="Column to agree in as well, by cross-entropy. May be repeated.",
)
@click.option(
    "--loss",
    "losses",
    multiple=True,
    callback=weights_of,
    metavar="NAME[=WEIGHT]",
    help="Loss on the label, see training/losses.py. May be repeated.  [default: triplet-hard]",
)
@click.option(
    "--prefix",
    "prefixes",
    type=int,
    multiple=True,
    metavar="NUMBERS",
    help="Length that the embedding shall be cut to without losing much. May be repeated.",
)
@option("--teacher", "Encoder folder whose similarities to learn as well; several joined by +.")
@option("--teacher-weight", "How much the teacher counts.")
@option("--item-column", "Column of items' ids.")
@option("--image-column", "Column of photos' paths, several joined by |.")
@option("--split-column", "Column of train, val or test; '' splits by a hash of the item.")
@option("--backbone", "Network.")
@option("--weights", "Weights file to start from; none: random weights.  [default: the backbone's ImageNet weights]")
@option("--pooling", "Pooling of the last feature map.", type=click.Choice(["average", "gem"]))
@option("--dim", "Project embeddings to so many numbers.", type=int)
@option("--size", "Side in pixels of what is served.  [default: the backbone's]", type=int)
@option("--first-stage", "First stage that learns.  [default: the backbone's]", type=int)
@option("--unfreeze-at", "Epoch at whose start one more stage learns. May be repeated.", type=int, multiple=True)
@click.option(
    "--frozen-statistics",
    "tracks_statistics",
    flag_value=False,
    default=True,
    type=bool,
    help="Keep batch-norm statistics as they came.",
)
@option("--train-size", "Side in pixels of what is learned from.  [default: 6/7 of what is served]", type=int)
@click.option(
    "--more-size",
    "more_sizes",
    type=int,
    multiple=True,
    metavar="PIXELS",
    help="A further side; each batch has one of all sides. May be repeated.",
)
@option("--min-area", "Smallest share of a photo that a crop keeps.")
@option("--jitter", "Largest change of brightness and contrast.")
@option("--views", "Store so many views of each photo after the frozen stages, which saves most of the time.", type=int)
@option("--classes", "P, classes of a batch.")
@option("--photos", "K, photos of a class in a batch.")
@option("--chunk", "Photos that go through the network at once, with gradient caching.", type=int)
@option("--epochs", "Passes over the photos.")
@option("--rate", "Highest learning rate.")
@option("--decay", "Weight decay.")
@option("--warm-up", "Share of the steps in which the rate rises.")
@option("--average", "Decay of a moving average of weights, such as 0.99.", type=float)
@option("--patience", "Judged epochs without gain on val before it stops.")
@option("--judge-every", "Epochs between judgements on val.")
@option("--precision", "What the network computes in.", type=click.Choice(["float32", "bfloat16"]))
@option("--seed", "Decides batches, variations and new weights.", type=int)
@option("--threads", "CPU threads.")
@click.pass_context
def main(
    context: click.Context,
    data: Path | None,
    out: Path | None,
    resume: Path | None,
    stop_after: int | None,
    cache: Path,
    **options: Any,
) -> None:
    """Train an encoder on labelled photos, and keep the epoch that is best on val."""
    from training.run import run
    from training.run_folder import RunFolder
    from training.turns import joined
    from worker.encoder import EncoderUnavailable

    if (resume is None) == (out is None) or (out is not None and data is None):
        raise click.UsageError("Name --data and --out for a new run, or --resume alone.")
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in ("data", *options)
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if resume is not None and given:
        raise click.UsageError(f"A run goes on by its own plan: leave out {', '.join(given)}.")
    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    folder = RunFolder(resume or out or Path())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        plan = read_plan(folder.config) if resume else plan_of(data or Path(), options)
        with joined() as (turns, device):
            quiet = not console.is_terminal or not turns.leads
            with Progress(*columns, console=console, disable=quiet, transient=True) as bars:
                progress = run(
                    plan,
                    folder,
                    cache,
                    resumes=resume is not None,
                    turns=turns,
                    device=device,
                    shown=Bars(console, bars).shown if turns.leads else lambda _: lambda *_: None,
                    said=lambda text: console.print(text, highlight=False),
                    stop_after=stop_after,
                )
    except (TrainingProblem, EncoderUnavailable) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"A file can't be read or written: {error}. Finished epochs are kept.") from error
    except KeyboardInterrupt:
        if not folder.config.exists():
            raise click.ClickException("Stopped before the first epoch; the same command begins again.") from None
        raise click.ClickException(
            f"Stopped. Finished epochs are kept; go on with: python -m training.train --resume {folder.path}"
        ) from None
    if turns.leads:
        best = f"Best on val: Precision@5 {progress.best:.4f} after epoch {progress.best_epoch}"
        console.print(f"{best if progress.best_epoch else 'Not judged yet'}; {folder.path}", highlight=False)


def plan_of(data: Path, options: dict[str, Any]) -> Plan:
    """Return the plan that the options ask for.

    Raises:
        TrainingProblem: if they make no sense.
    """
    given = {name: value for name, value in options.items() if value is not None}
    losses = given.pop("losses") or {"triplet-hard": 1.0}
    given["split_column"] = given.get("split_column") or None
    return Plan(str(data), losses=losses, **given)


if __name__ == "__main__":
    main()
