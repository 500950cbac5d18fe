"""The shop staff's page in a real headless Chromium, against the running stack.

Every test also fails where the page isn't served with the strict Content-Security-Policy, violates it, asks another
host for something, or logs an error.
"""

import base64
import csv
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Request, ViewportSize, expect

from tests.conftest import Launcher
from tests.stack import Stack

POLICY = "default-src 'self'; img-src 'self' blob: data:"
PATIENCE_MS = 20_000
PHONE: ViewportSize = {"width": 360, "height": 740}
TABS_AT_MOST = 120

SVG = b"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'><circle r='4' cx='4' cy='4'/></svg>"

REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation",
    (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""
# Playwright doesn't show bodies as large as a photo, so the page itself notes what it sends beside the file.
RECORD_FIELDS = """
const send = window.fetch;
window.fetch = (path, options = {}) => {
    if (options.body instanceof FormData) {
        window.sentFields = Object.fromEntries([...options.body].filter(([, value]) => typeof value === "string"));
    }
    return send(path, options);
};
"""
RECORD_PROGRESS = """
() => {
    window.progressSeen = [];
    const bar = document.querySelector("#import-progress");
    const stage = document.querySelector("#import-stage");
    const note = () => window.progressSeen.push([stage.textContent, bar.hasAttribute("value") ? bar.value : null]);
    new MutationObserver(note)
        .observe(document.querySelector("#import-running"), { attributes: true, childList: true, subtree: true });
}
"""
DROP_FILE = """
(target, { name, type, data }) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    for (const kind of ["dragenter", "dragover", "drop"]) {
        target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
    }
}
"""
COPY_PNG = """
async (data) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
}
"""
FOCUSED_NAME = """
() => {
    const element = document.activeElement;
    return (element.getAttribute("aria-label") || element.textContent || "").trim();
}
"""
PICTURES_LOADED = """
async () => {
    const pictures = [...document.querySelectorAll("[data-item] img")];
    for (const picture of pictures) {
        picture.scrollIntoView();
        await picture.decode();
    }
    return pictures.map((picture) => picture.naturalWidth);
}
"""


@pytest.fixture(scope="session")
def chromium(chromium_launcher: Launcher) -> Iterator[Browser]:
    """A headless Chromium for all tests of this file."""
    browser = chromium_launcher()
    yield browser
    browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained about; a test that provokes a complaint takes it out again."""
    return []


@pytest.fixture
def browser_page(chromium: Browser, live_server: str, complaints: list[str]) -> Iterator[Page]:
    """The start page; fails a test whose page does what it must not."""
    context = chromium.new_context(viewport={"width": 1280, "height": 860}, base_url=live_server)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_server)
    context.add_init_script(REPORT_VIOLATIONS)
    context.add_init_script(f"{{{RECORD_FIELDS}}}")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    host = urlsplit(live_server).netloc

    def watch(request: Request) -> None:
        if urlsplit(request.url).scheme in ("http", "https", "ws", "wss") and urlsplit(request.url).netloc != host:
            complaints.append(f"request to another host: {request.url}")

    page.on("request", watch)
    # Keeps choosers intercepted from the start; else a key that is pressed at once may open one unseen.
    page.on("filechooser", lambda chooser: None)
    page.on("pageerror", lambda error: complaints.append(f"script error: {error}"))
    page.on("console", lambda m: complaints.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    response = page.goto("/")
    assert response is not None
    assert response.headers["content-security-policy"].startswith(POLICY)
    expect(page.locator("#shelf-items img").first).to_be_visible(timeout=PATIENCE_MS)
    yield page
    context.close()
    assert complaints == []


def hits_of(page: Page) -> Locator:
    return page.locator("#results [data-item]")


def ids_of(page: Page) -> list[str]:
    return [card.get_attribute("data-item") or "" for card in hits_of(page).all()]


def expect_hits(page: Page, count: int = 10) -> None:
    expect(hits_of(page)).to_have_count(count, timeout=PATIENCE_MS)
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false", timeout=PATIENCE_MS)


def search_with(page: Page, photo: Path) -> None:
    page.set_input_files("#photo", photo)
    expect_hits(page)


def search_sent_by(page: Page, act: Callable[[], object]) -> Request:
    """Do something that starts a search, and wait until its answer is on the page."""
    with page.expect_response("**/v1/searches", timeout=PATIENCE_MS) as answer:
        act()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false", timeout=PATIENCE_MS)
    return answer.value.request


def crop_sent_by(page: Page, act: Callable[[], object]) -> dict[str, float] | None:
    """Do something that searches with another part of the photo, and return the crop that the search carried."""
    search_sent_by(page, act)
    crop = page.evaluate("window.sentFields.crop")
    return json.loads(crop) if crop else None


def item_in(request: Request) -> str:
    """The item of a JSON search."""
    return str(json.loads(request.post_data or "{}")["item_id"])


def facet_of(page: Page, name: str) -> Locator:
    facet = page.locator("details.facet").filter(has=page.locator("summary", has_text=name))
    if facet.get_attribute("open") is None:
        facet.locator("summary").click()
    return facet


def attribute_of(card: Locator, name: str) -> str:
    return (
        card.locator("dl > div").filter(has=card.page.locator("dt", has_text=name)).locator("dd").text_content() or ""
    )


def tab_to(page: Page, name: str, key: str = "Tab") -> None:
    """Press the Tab key until the control of that name has the focus."""
    seen = []
    for _ in range(TABS_AT_MOST):
        page.keyboard.press(key)
        seen.append(page.evaluate(FOCUSED_NAME))
        if seen[-1].startswith(name):
            return
    pytest.fail(f"{key} never reaches {name!r}; it reached {seen}")


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw on the preview, with positions as fractions of it."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    at = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, end)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=5)
    page.mouse.up()


def take_out(complaints: list[str], text: str) -> None:
    """Remove the complaint that a test provoked; it must be there."""
    provoked = [complaint for complaint in complaints if text in complaint]
    assert provoked, f"no complaint about {text!r} among {complaints}"
    complaints[:] = [complaint for complaint in complaints if complaint not in provoked]


def zip_of(rows: list[dict[str, str]], images: dict[str, bytes]) -> bytes:
    """A catalogue as one uploads it: products.csv and its images."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("products.csv", text.getvalue())
        for name, content in images.items():
            file.writestr(name, content)
    return archive.getvalue()


def start_import(page: Page, content: bytes) -> None:
    page.get_by_role("button", name="Import catalogue").click()
    page.set_input_files("#import-file", {"name": "catalogue.zip", "mimeType": "application/zip", "buffer": content})
    page.get_by_role("button", name="Import", exact=True).click()


def test_choosing_a_photo_shows_ten_hits_with_pictures_and_falling_scores(
    browser_page: Page, sample_catalogue: Path
) -> None:
    with browser_page.expect_file_chooser() as chooser:
        browser_page.get_by_role("button", name="Choose a photo").click()
    chooser.value.set_files(sample_catalogue / "photo.jpg")
    expect_hits(browser_page)

    widths = browser_page.evaluate(PICTURES_LOADED)
    assert len(widths) == 10
    assert min(widths) > 0
    texts = browser_page.locator("#results .score-number").all_text_contents()
    assert all(re.fullmatch(r"-?[01]\.\d\d", text) for text in texts)
    scores = [float(text) for text in texts]
    assert scores == sorted(scores, reverse=True)
    for card in hits_of(browser_page).all():
        assert card.locator("img").get_attribute("alt") == card.get_by_role("heading").text_content()
    expect(browser_page.locator("#provenance")).to_contain_text(re.compile(r"in <?\d+ ms .*release "))
    expect(browser_page.locator("#status[role=status]")).to_contain_text("10 items")


def test_a_dropped_photo_is_searched_with(browser_page: Page, sample_catalogue: Path) -> None:
    data = base64.b64encode((sample_catalogue / "photo.jpg").read_bytes()).decode()
    browser_page.locator("#dropzone").evaluate(DROP_FILE, {"name": "photo.jpg", "type": "image/jpeg", "data": data})
    expect_hits(browser_page)


def test_a_pasted_photo_is_searched_with(browser_page: Page, sample_catalogue: Path) -> None:
    png = io.BytesIO()
    with Image.open(sample_catalogue / "photo.jpg") as photo:
        photo.save(png, "PNG")
    browser_page.evaluate(COPY_PNG, base64.b64encode(png.getvalue()).decode())
    browser_page.keyboard.press("Control+v")
    expect_hits(browser_page)


def test_the_address_of_an_image_is_searched_with_and_shown_in_words(browser_page: Page, live_server: str) -> None:
    picture = browser_page.locator("#shelf-items img").first.get_attribute("src") or ""
    address = urljoin(live_server, picture)
    browser_page.get_by_label("Or with the address of an image").fill(address)
    browser_page.keyboard.press("Enter")
    expect_hits(browser_page)
    expect(browser_page.locator("#no-preview")).to_have_text(address)
    expect(browser_page.locator("#stage")).to_be_hidden()


def test_a_drawn_crop_is_sent_and_can_be_taken_back(browser_page: Page, sample_catalogue: Path) -> None:
    search_with(browser_page, sample_catalogue / "photo.jpg")
    drawn = crop_sent_by(browser_page, lambda: drag(browser_page, (0.25, 0.2), (0.75, 0.6)))
    assert drawn == pytest.approx({"x": 0.25, "y": 0.2, "width": 0.5, "height": 0.4}, abs=0.02)

    moved = crop_sent_by(browser_page, lambda: drag(browser_page, (0.5, 0.4), (0.6, 0.5)))
    assert moved == pytest.approx({"x": 0.35, "y": 0.3, "width": 0.5, "height": 0.4}, abs=0.02)

    resized = crop_sent_by(browser_page, lambda: drag(browser_page, (0.85, 0.7), (0.95, 0.9)))
    assert resized == pytest.approx({"x": 0.35, "y": 0.3, "width": 0.6, "height": 0.6}, abs=0.02)

    assert crop_sent_by(browser_page, browser_page.get_by_role("button", name="Whole photo").click) is None


def test_a_colour_filter_leaves_only_items_of_that_colour(browser_page: Page, sample_catalogue: Path) -> None:
    search_with(browser_page, sample_catalogue / "photo.jpg")
    chip = facet_of(browser_page, "Colour").locator("label.chip").first
    colour = chip.text_content() or ""
    search_sent_by(browser_page, chip.click)
    cards = hits_of(browser_page).all()
    assert {attribute_of(card, "Colour") for card in cards} == {colour}
    assert "filter=" in browser_page.url

    search_sent_by(browser_page, browser_page.get_by_role("button", name="Clear filters").click)
    expect_hits(browser_page)
    assert "filter=" not in browser_page.url


def test_a_filter_that_nothing_matches_is_explained_in_words(browser_page: Page, sample_catalogue: Path) -> None:
    search_with(browser_page, sample_catalogue / "photo.jpg")
    lowest = facet_of(browser_page, "Price").get_by_label("Price from")
    search_sent_by(browser_page, lambda: lowest.fill("1000000"))
    expect(browser_page.get_by_role("heading", name="No item matches these filters")).to_be_visible()
    search_sent_by(browser_page, browser_page.locator("#results").get_by_role("button", name="Clear filters").click)
    expect_hits(browser_page)


def test_more_like_this_searches_with_the_item_and_back_returns(browser_page: Page, sample_catalogue: Path) -> None:
    search_with(browser_page, sample_catalogue / "photo.jpg")
    from_photo = ids_of(browser_page)
    link = hits_of(browser_page).nth(1).get_by_role("link", name="More like this")
    request = search_sent_by(browser_page, link.click)
    assert item_in(request) == from_photo[1]
    assert f"item={from_photo[1]}" in browser_page.url
    assert hits_of(browser_page).count() > 0
    from_item = ids_of(browser_page)
    assert from_item != from_photo

    browser_page.go_back()
    expect_hits(browser_page)
    assert ids_of(browser_page) == from_photo
    browser_page.go_forward()
    expect(hits_of(browser_page).first).to_have_attribute("data-item", from_item[0])
    assert ids_of(browser_page) == from_item
    browser_page.get_by_role("navigation", name="Breadcrumb").get_by_role("button", name="Your photo").click()
    expect_hits(browser_page)
    assert ids_of(browser_page) == from_photo


def test_the_address_of_an_item_search_can_be_shared(browser_page: Page) -> None:
    href = browser_page.locator("#shelf-items a").first.get_attribute("href")
    browser_page.goto(f"{href}&k=20")
    expect_hits(browser_page, 20)
    assert browser_page.locator("#preview").get_attribute("alt")


def test_an_svg_is_refused_in_an_alert(browser_page: Page, complaints: list[str]) -> None:
    with browser_page.expect_response("**/v1/searches") as answer:
        browser_page.set_input_files("#photo", {"name": "logo.svg", "mimeType": "image/svg+xml", "buffer": SVG})
    assert answer.value.json()["code"] == "image_unsupported"
    expect(browser_page.locator("#problem[role=alert]")).to_contain_text(answer.value.json()["detail"])
    expect(hits_of(browser_page)).to_have_count(0)
    take_out(complaints, str(answer.value.status))


def test_an_outage_is_told_and_the_search_can_be_tried_again(
    browser_page: Page, sample_catalogue: Path, complaints: list[str]
) -> None:
    problem = {"type": "about:blank", "title": "The queue is out of reach", "status": 503, "detail": "Wait a bit."}
    with_code = json.dumps({**problem, "code": "redis_unavailable"})
    browser_page.route(
        "**/v1/searches",
        lambda route: route.fulfill(
            status=503, body=with_code, headers={"Retry-After": "3", "Content-Type": "application/problem+json"}
        ),
        times=1,
    )
    browser_page.set_input_files("#photo", sample_catalogue / "photo.jpg")
    alert = browser_page.locator("#problem[role=alert]")
    expect(alert).to_contain_text("Wait a bit.")
    expect(alert).to_contain_text("Try again in 3 seconds")
    take_out(complaints, "503")
    alert.get_by_role("button", name="Try again").click()
    expect_hits(browser_page)
    expect(alert).to_be_empty()


def test_an_empty_catalogue_invites_to_import(browser_page: Page) -> None:
    nothing = {"/v1/items": {"items": [], "next_cursor": None}, "/v1/attributes": {"attributes": []}}
    browser_page.route(
        re.compile(r"/v1/(items\?|attributes)"),
        lambda route: route.fulfill(json=nothing[urlsplit(route.request.url).path]),
    )
    browser_page.reload()
    browser_page.get_by_role("button", name="Import a catalogue").click()
    expect(browser_page.get_by_role("dialog", name="Import a catalogue")).to_be_visible()


def test_the_keyboard_alone_is_enough(browser_page: Page, sample_catalogue: Path) -> None:
    tab_to(browser_page, "Choose a photo")
    with browser_page.expect_file_chooser() as chooser:
        browser_page.keyboard.press("Enter")
    chooser.value.set_files(sample_catalogue / "photo.jpg")
    expect_hits(browser_page)

    tab_to(browser_page, "Whole photo", key="Shift+Tab")
    drawn = crop_sent_by(browser_page, lambda: browser_page.keyboard.press("ArrowRight"))
    moved = crop_sent_by(browser_page, lambda: browser_page.keyboard.press("ArrowRight"))
    grown = crop_sent_by(browser_page, lambda: browser_page.keyboard.press("Shift+ArrowDown"))
    assert drawn
    assert moved
    assert grown
    assert moved["x"] > drawn["x"]
    assert moved["width"] == drawn["width"]
    assert grown["height"] > moved["height"]

    first = ids_of(browser_page)[0]
    tab_to(browser_page, "More like this")
    request = search_sent_by(browser_page, lambda: browser_page.keyboard.press("Enter"))
    assert item_in(request) == first


def test_an_import_shows_its_progress_its_result_and_its_bad_row(browser_page: Page, sample_catalogue: Path) -> None:
    with (sample_catalogue / "products.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:30]
    names = [name for row in rows for name in row["image"].split("|")]
    images = {name: (sample_catalogue / name).read_bytes() for name in names}
    rows.append({**rows[0], "id": "without-image", "image": "images/nowhere.jpg"})

    browser_page.evaluate(RECORD_PROGRESS)
    start_import(browser_page, zip_of(rows, images))
    report = browser_page.get_by_role("region", name="Result of the import")
    expect(report).to_be_visible(timeout=60_000)

    expect(report.locator("dl > div").filter(has_text="Imported")).to_contain_text("30")
    expect(report.locator("dl > div").filter(has_text="Left out")).to_contain_text("1")
    bad = report.locator("tbody tr")
    expect(bad).to_have_count(1)
    expect(bad.locator("td").nth(0)).to_have_text("32")
    expect(bad.locator("td").nth(1)).to_have_text("without-image")
    expect(bad.locator("td").nth(2)).not_to_be_empty()
    expect(report.get_by_role("link", name="as JSON")).to_have_attribute("href", re.compile(r"/v1/jobs/.+/errors"))
    seen = browser_page.evaluate("window.progressSeen")
    assert any(stage == "Uploading" for stage, _ in seen)
    assert [value for stage, value in seen if stage == "Importing"][-1] == 1
    report.get_by_role("button", name="Done").click()
    expect(browser_page.get_by_role("dialog")).to_be_hidden()


def test_a_running_import_can_be_cancelled(browser_page: Page, stack: Stack) -> None:
    count = 300
    images = {}
    for number in range(count):
        picture = io.BytesIO()
        Image.frombytes("RGB", (32, 32), os.urandom(32 * 32 * 3)).save(picture, "PNG")
        images[f"images/{number}.png"] = picture.getvalue()
    rows = [{"id": f"cancelled-{n}", "title": "Noise", "image": name} for n, name in enumerate(images)]
    try:
        start_import(browser_page, zip_of(rows, images))
        expect(browser_page.locator("#import-stage")).to_have_text("Importing", timeout=PATIENCE_MS)
        with browser_page.expect_response(lambda answer: answer.request.method == "DELETE") as answer:
            browser_page.get_by_role("button", name="Cancel import").click()
        assert answer.value.json()["status"] == "cancelled"
        expect(browser_page.locator("#import-label")).to_have_text("Import cancelled", timeout=PATIENCE_MS)
        expect(browser_page.get_by_role("button", name="Import", exact=True)).to_be_visible()
    finally:
        # A chunk that was under way still lands; the queue keeps its order, so it has when this import ends.
        assert stack.imported(b"id,title,image\nx,X,nowhere.jpg\n")["result"]["failed"] == 1
        for row in rows:
            stack.delete(f"/v1/items/{row['id']}")


def test_a_phone_never_scrolls_sideways(browser_page: Page, sample_catalogue: Path) -> None:
    def is_within() -> bool:
        return bool(browser_page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))

    browser_page.set_viewport_size(PHONE)
    browser_page.reload()
    expect(browser_page.locator("#shelf-items img").first).to_be_visible()
    assert is_within()
    search_with(browser_page, sample_catalogue / "photo.jpg")
    assert is_within()
    expect(browser_page.locator("#filters")).to_be_hidden()
    browser_page.locator("#filters-fold > summary").click()
    browser_page.locator("#facets details").evaluate_all("(folds) => folds.forEach((fold) => { fold.open = true; })")
    hits_of(browser_page).first.locator("summary").click()
    assert is_within()
    browser_page.get_by_role("button", name="Import catalogue").click()
    dialog = browser_page.get_by_role("dialog").bounding_box()
    assert dialog is not None
    assert dialog["x"] >= 0
    assert dialog["x"] + dialog["width"] <= PHONE["width"]


def test_the_documentation_keeps_the_policy_too(browser_page: Page) -> None:
    response = browser_page.goto("/docs")
    assert response is not None
    assert response.headers["content-security-policy"].startswith(POLICY)
    operation = browser_page.locator(".opblock").filter(has=browser_page.get_by_text("/readyz", exact=True))
    operation.locator("button").first.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")


def test_the_watch_over_the_page_notices_what_it_must_not_do(browser_page: Page, complaints: list[str]) -> None:
    browser_page.evaluate("document.body.append(Object.assign(new Image(), { src: 'http://other.invalid/a.png' }))")
    browser_page.wait_for_function("document.body.lastElementChild.complete")
    browser_page.evaluate("console.error('seen')")
    take_out(complaints, "policy: img-src http://other.invalid/a.png")
    take_out(complaints, "console: seen")
    complaints[:] = [complaint for complaint in complaints if "other.invalid" not in complaint]
