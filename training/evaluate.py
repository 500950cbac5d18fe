"""Judge an encoder on photos that it did not learn from.

    python -m training.evaluate ENCODER --data ../shared/datasets/fashion --out var/training/report
    python -m training.evaluate ENCODER --against tf_efficientnet_lite0 ...     with a paired significance test
    python -m training.evaluate ENCODER --runtime openvino-int8 ...             as it serves

ENCODER is a folder that `python -m training.export` wrote, the folder of a release's encoder (below
LOOKALIKE_ENCODER_CACHE_PATH), or a backbone with its ImageNet weights; several joined by + are judged as an ensemble.
Choose on val; ask test once.
"""

import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.errors import LookalikeError
from training.judgement import Judgement, compare, judge
from training.labelled_photos import Columns, LabelledPhotos, columns_among, read_photos
from training.problem import TrainingProblem
from training.report import named_values, write_report
from training.served import as_served
from worker.encoder import EncoderUnavailable
from worker.encoder.runtimes import Runtime

INDEXED = {"val": ("train",), "test": ("train", "val")}
ATTRIBUTES = ("sub_category", "base_colour")


def judge_encoder(
    name: str, runtime: Runtime, photos: LabelledPhotos, split: str, threads: int, told: Callable[[int, int], None]
) -> Judgement:
    """Open an encoder as it serves and judge it on a split, by the protocol of docs/training.md.

    Args:
        name: see `as_served`.
        runtime: see `as_served`.
        photos: all splits.
        split: val searches in train, test in train and val.
        threads: CPU threads of one forward pass.
        told: told how many photos are embedded, of how many.

    Raises:
        EncoderUnavailable: if it can't be opened in that runtime.
        TrainingProblem: if a split is empty, or there is no such encoder.
    """
    index, queries = photos.rows_of(*INDEXED[split]), photos.rows_of(split)
    held_out = photos.rows_of("val")
    with as_served(name, runtime, photos, photos.rows_of("train"), held_out, threads) as (encoder, size_bytes):
        return judge(encoder, photos, queries, index, told, size_bytes)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("encoder")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="CSV file or folder, as in training.")
@click.option("--split", type=click.Choice(list(INDEXED)), default="test", show_default=True, help="Who asks.")
@click.option("--against", metavar="ENCODER", help="Another encoder to compare with on the same queries.")
@click.option(
    "--runtime",
    type=click.Choice(["torch", "openvino", "openvino-int8"]),
    default="torch",
    show_default=True,
    help="What runs a trained encoder.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of a report with pictures.")
@click.option("--label", default="article_type", show_default=True, help="Column that retrieval is judged by.")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    help=f"Further column; may be repeated.  [default: {' and '.join(ATTRIBUTES)}, where there are such]",
)
@click.option("--item-column", default="id", show_default=True)
@click.option("--image-column", default="image", show_default=True)
@click.option("--split-column", default="split", show_default=True, help="'' splits by a hash of the item.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
def main(
    encoder: str,
    data: Path,
    split: str,
    against: str | None,
    runtime: Runtime,
    out: Path | None,
    label: str,
    attributes: tuple[str, ...],
    item_column: str,
    image_column: str,
    split_column: str,
    threads: int,
) -> None:
    """Judge an encoder, and compare it with another one; prints NAME: VALUE lines."""
    errors = Console(stderr=True)
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[RichHandler(console=errors, show_path=False)])
    chosen = attributes or columns_among(data, ATTRIBUTES)
    columns = Columns(item_column, image_column, label, chosen, split_column or None)
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    other, differences = None, None
    try:
        photos = read_photos(data, columns)
        with Progress(*bars, console=errors, disable=not errors.is_terminal, transient=True) as progress:

            def told(name: str) -> Callable[[int, int], None]:
                task = progress.add_task(f"Embedding with {name}")
                return lambda done, total: progress.update(task, completed=min(done, total), total=total)

            judgement = judge_encoder(encoder, runtime, photos, split, threads, told(encoder))
            if against is not None:
                other = judge_encoder(against, runtime, photos, split, threads, told(against))
                differences = compare(judgement, other)
        if out is not None:
            command = shlex.join(["python", "-m", "training.evaluate", *sys.argv[1:]])
            page = write_report(out, judgement, other, differences, command)
    except (TrainingProblem, EncoderUnavailable, LookalikeError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("Stopped; nothing was written.") from None
    click.echo(f"encoder: {judgement.encoder}\nruntime: {judgement.runtime}")
    for name, value in named_values(judgement).items():
        click.echo(f"{name}: {value:.4f}")
    cost = judgement.cost
    click.echo(f"milliseconds: {cost.milliseconds:.1f}\nphotos_per_second: {cost.photos_per_second:.0f}")
    click.echo(f"bytes: {cost.size_bytes}")
    for name, difference in (differences or {}).items():
        click.echo(f"{name}_gain: {difference.points.mean:+.4f} (p {difference.p_value:.4f})")
    if out is not None:
        click.echo(f"report: {page}")


if __name__ == "__main__":
    main()
