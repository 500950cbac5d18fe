"""Which column of a catalogue file plays which part."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from shared.attributes import FILTER_WORDS
from shared.errors import ImportColumnsMissing, ImportFileBroken

MAX_NAMES = 1000  # of attributes over all rows of a file; an NDJSON file could have other names in every row
UNNAMED = "(unnamed)"
OVERFLOW = f"(all after the first {MAX_NAMES})"
_IMAGE_NAMES = ("image", "images", "image_url")
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]{0,63}")


class Columns:
    """The parts that a file's columns play.

    Attributes:
        id: name of the column of ids.
        title: name of the column of titles, which need not be there.
        image: name of the column of image references.
        skipped: columns that are not read, since a filter can't name them, in the order in which they were seen.
    """

    def __init__(self, found: Sequence[str], named: Mapping[str, str], *, are_all_found: bool) -> None:
        """Args:
        found: names of the file's columns.
        named: what the client calls `id`, `title` or `image`.
        are_all_found: whether the file has no further columns, as with a header.

        Raises:
            ImportColumnsMissing: if there is no column for id or image, or none of a name that the client gave.
            ImportFileBroken: if two columns have one name.
        """
        repeated = [name for name, times in Counter(found).items() if times > 1 and name]
        if repeated:
            raise ImportFileBroken(f"The file has more than one column {_listed(repeated)}. Rename all but one.")
        self.id = named.get("id", "id")
        self.title = named.get("title", "title")
        self.image = named.get("image") or next((name for name in _IMAGE_NAMES if name in found), _IMAGE_NAMES[0])
        needed = {"id": self.id, "image": self.image}
        if "title" in named and are_all_found:
            needed["title"] = self.title
        missing = {part: name for part, name in needed.items() if name not in found}
        if missing:
            remedy = json.dumps(dict.fromkeys(missing, "its name in the file"))
            raise ImportColumnsMissing(
                f"The file has no column {_listed(missing.values())}; it has {_listed(found)}. "
                f"Rename the column, or pass columns={remedy}.",
                found=[_storable(name)[:64] for name in found[:100]],
            )
        self.skipped: list[str] = []
        self._verdicts: dict[str, bool] = {}
        for name in found:
            self.is_wanted(name)

    def is_wanted(self, name: str) -> bool:
        """Whether the column is read at all."""
        return name in (self.id, self.title, self.image) or self.is_attribute(name)

    def is_attribute(self, name: str) -> bool:
        """Whether the column is an attribute. The first time that the answer is no, it is added to `skipped`."""
        if name in (self.id, self.title, self.image):
            return False
        name = name[:65]  # one more than an attribute may have
        verdict = self._verdicts.get(name)
        if verdict is None:
            if len(self._verdicts) >= MAX_NAMES:
                if self.skipped[-1:] != [OVERFLOW]:
                    self.skipped.append(OVERFLOW)
                return False
            verdict = _ATTRIBUTE_NAME.fullmatch(name) is not None and name not in FILTER_WORDS
            self._verdicts[name] = verdict
            if not verdict:
                self.skipped.append(_storable(name) or UNNAMED)
        return verdict


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:64]) for name in islice(names, 30)) or "none"


def _storable(name: str) -> str:
    return re.sub(r"[\0\ud800-\udfff]", "\ufffd", name)
