from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import PathRefused
from shared.paths import normalise_relative, resolve_below

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("images/1.jpg", "images/1.jpg"),
        ("./images//1.jpg", "images/1.jpg"),
        ("images/./1.jpg", "images/1.jpg"),
        (r"images\front\1.jpg", "images/front/1.jpg"),
        ("images/", "images"),
        ("...", "..."),
        ("a..b/..c", "a..b/..c"),
        ("~/1.jpg", "~/1.jpg"),
        ("größe/ 1.jpg", "größe/ 1.jpg"),
    ],
)
def test_a_relative_path_has_one_spelling(path: str, expected: str) -> None:
    assert normalise_relative(path) == expected


@pytest.mark.parametrize(
    "path",
    ["", ".", "./", "/", "/etc/passwd", "//host/share", r"\\host\share", r"\etc", "C:/a.jpg", r"c:\a.jpg", "C:a.jpg",
     "./C:", "..", "../a.jpg", "a/../../b", "a/..", r"..\a.jpg", r"a\..\..\b", "a\0.jpg", "\ud800.jpg"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused_with_the_remedy(path: str, tmp_path: Path) -> None:
    for refuse in (normalise_relative, lambda given: resolve_below(tmp_path, given)):
        with pytest.raises(PathRefused, match=r"images/1\.jpg"):
            refuse(path)


def test_a_path_below_the_root_is_resolved_whether_it_exists_or_not(tmp_path: Path) -> None:
    assert resolve_below(tmp_path, "a/b.jpg") == tmp_path.resolve() / "a" / "b.jpg"
    assert resolve_below(tmp_path, "x" * 5000).parent == tmp_path.resolve()


def test_links_are_followed_within_the_root_but_not_out_of_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "root-not"
    for folder in (root, outside):
        folder.mkdir()
        (folder / "a.jpg").touch()
    (root / "inner").symlink_to(root)
    (root / "escape").symlink_to(outside)
    (root / "file.jpg").symlink_to(outside / "a.jpg")
    assert resolve_below(root, "inner/inner/a.jpg") == (root / "a.jpg").resolve()
    for path in ("escape/a.jpg", "file.jpg", "inner/escape", "escape/new.jpg"):
        with pytest.raises(PathRefused, match="symbolic link"):
            resolve_below(root, path)


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(PathRefused, match="followed"):
        resolve_below(tmp_path, "a/x.jpg")


def test_a_root_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert resolve_below(tmp_path / "link", "a.jpg") == (tmp_path / "root" / "a.jpg").resolve()


@patient
@given(st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "C:", "\0", " "])).map("".join))
def test_no_path_leaves_its_root(path: str) -> None:
    root = Path("/nowhere/root")
    try:
        name = normalise_relative(path)
    except PathRefused:
        return
    assert resolve_below(root, path) == root / name
    assert normalise_relative(name) == name
