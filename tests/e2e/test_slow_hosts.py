"""Images at hosts that take their time: others are not kept waiting for them."""

import time

from tests.e2e.pictures import PictureServer, picture
from tests.e2e.steps import ids_of, put_item
from tests.stack import Stack, wait_until

THREADS = 16


def test_bug_slow_hosts_held_all_threads_of_the_search_worker(scratch_stack: Stack, shop: PictureServer) -> None:
    put_item(scratch_stack, "hat", picture("hat"))
    put_item(scratch_stack, "bag", picture("bag"))
    slow = [shop.add(f"/slow/{n}.png", picture("hat")) for n in range(THREADS + 4)]
    searches = [scratch_stack.post("/v1/searches", json={"image_url": url}).json()["id"] for url in slow]
    items = [
        scratch_stack.put(f"/v1/items/slow{n}", json={"image_urls": [url, f"{url}?2"]}).json()["id"]
        for n, url in enumerate(slow[:4])
    ]
    wait_until(lambda: scratch_stack.get(f"/v1/jobs/{searches[0]}").json()["status"] == "running", 10, "the first")

    start = time.monotonic()
    for _ in range(3):
        assert ids_of(scratch_stack.search(picture("bag"), fresh=True))[0] == "bag"
    put_item(scratch_stack, "scarf", picture("scarf"))
    assert time.monotonic() - start < 15
    assert {scratch_stack.get(f"/v1/jobs/{job_id}").json()["status"] for job_id in searches} <= {"queued", "running"}

    shop.release.set()
    assert {scratch_stack.finished(job_id)["status"] for job_id in searches} == {"succeeded"}
    for job_id in items:
        assert scratch_stack.finished(job_id)["error"]["code"] == "image_fetch_failed"  # the query names no picture
