"""`search`: finds the items that look most like a photo."""

from pathlib import Path
from typing import Any

import click

from client.commands.session import Session, pass_session
from client.commands.terms import given_terms, term_options
from client.output import print_search

DEFAULT_K = 10
CROP_SIDES = ("x", "y", "width", "height")


def _parse_crop(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, float] | None:
    if value is None:
        return None
    try:
        x, y, width, height = (float(side) for side in value.split(","))
    except ValueError as error:
        raise click.BadParameter("not four numbers x,y,width,height such as 0.2,0.1,0.5,0.5") from error
    return dict(zip(CROP_SIDES, (x, y, width, height), strict=True))


@click.command("search")
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--url", "image_url", metavar="URL", help="Search with a photo that the server fetches.")
@click.option("--item", "item_id", metavar="ID", help='Search with an item of the catalogue ("more like this").')
@term_options
@click.option(
    "--crop",
    metavar="X,Y,WIDTH,HEIGHT",
    callback=_parse_crop,
    help="Search with this part of the photo only, in fractions of its width and height.",
)
@pass_session
def search(
    session: Session,
    photo: Path | None,
    image_url: str | None,
    item_id: str | None,
    crop: dict[str, float] | None,
    **options: Any,
) -> None:
    """Find the items that look most like PHOTO."""
    if sum(source is not None for source in (photo, image_url, item_id)) != 1:
        raise click.UsageError("Name exactly one of PHOTO, --url and --item.")
    sources = {"crop": crop, "image_url": image_url, "item_id": item_id}
    given = {name: value for name, value in sources.items() if value is not None}
    parameters = {"k": DEFAULT_K, **given_terms(**options), **given}
    if photo is not None:
        job = session.api.search_photo(photo.read_bytes(), photo.name, parameters)
    else:
        job = session.api.search_reference(parameters)
    if job["status"] in ("queued", "running"):
        job = session.follow(job)
    result = session.require_success(job)
    if session.as_json:
        session.print_json(job)
    else:
        print_search(session.out, result)
