"""What serves the page: its files, events that can be resumed, lists of jobs, telemetry."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import itertools
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.testclient import TestClient

from agentic_ray.errors import SessionError
from agentic_ray.master import JobRecord, JobState, Master, Registry
from agentic_ray.master.jobs import JobFailure, advance
from agentic_ray.service.access import Caller
from agentic_ray.service.http import create_app
from agentic_ray.service.page.feed import EventFeed
from agentic_ray.service.page.files import INDEX, load_files, manifest
from agentic_ray.service.page.routes import seen_by
from agentic_ray.service.page.shown import Filter, Snapshot, listing, row
from agentic_ray.service.page.telemetry import Samples, sample
from agentic_ray.service.tokens import TokenFile
from agentic_ray.telemetry import ClusterState, GpuState, NodeState

from .serving import served, stream

ROOT = Path(__file__).parents[2]
GPU = GpuState(
    "GPU-1",
    0,
    "A card",
    memory_total_bytes=100,
    memory_used_bytes=40,
    utilization=0.5,
    process_count=2,
    temperature_celsius=61.0,
)
STATE = ClusterState(
    (
        NodeState(
            "n",
            "host",
            4.0,
            1.0,
            store_total_bytes=50,
            store_used_bytes=5,
            gpus=(GPU,),
            cpu_fraction=0.75,
            host_memory_total_bytes=1000,
            host_memory_free_bytes=600,
        ),
    ),
    1_000.0,
)


@pytest.fixture(scope="module")
def opened() -> threading.Event:
    return threading.Event()


@pytest.fixture(scope="module")
def master(opened: threading.Event) -> Iterator[Master]:
    workloads = Registry()
    workloads.register("default", lambda params: sum(params["data"]), schema=dict[str, list[int]])
    workloads.register("echo", lambda params: params)
    workloads.register("wait", lambda params: opened.wait(60))

    def boom(params: Any) -> None:
        """Always fail.

        Not in the summary.
        """
        raise ValueError("on purpose, and at length: " + 5000 * "x")

    workloads.register("boom", boom)
    with Master(workloads=workloads, max_running=2) as made:
        yield made
        opened.set()


@pytest.fixture(scope="module")
def client(master: Master) -> Iterator[httpx.Client]:
    with (
        served(create_app(master, cluster=lambda: STATE)) as url,
        httpx.Client(base_url=url, trust_env=False) as made,
    ):
        yield made


# --- files -------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script>" not in page.text
    assert " style=" not in page.text
    assert "onload" not in page.text
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) == 3
    for name in named:
        assert re.fullmatch(r"page/[a-z]+\.[a-z]+", name)
        file = client.get(f"/{name}")
        assert file.status_code == 200
        assert file.headers["content-security-policy"] == policy
        assert file.headers["x-content-type-options"] == "nosniff"
        assert "url(" not in file.text or name.endswith(".js")


def test_files_are_compressed_and_known_again(client: httpx.Client) -> None:
    plain = client.get("/page/page.js", headers={"Accept-Encoding": "identity"})
    packed = client.get("/page/page.js", headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < 200_000
    again = client.get("/page/page.js", headers={"If-None-Match": packed.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/page/page.js", headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "manifest.json", "..%2froutes.py", "%2e%2e", ""])
def test_no_other_file_is_served(client: httpx.Client, name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404


def test_a_token_is_needed_for_all_but_the_files(master: Master) -> None:
    app = create_app(master, token="secret", cluster=lambda: STATE)
    client = TestClient(app, base_url="http://127.0.0.1:8080")
    for path in ("/", *(f"/page/{name}" for name in load_files())):
        assert client.get(path).status_code == 200
    for path in ("/events", "/events/x", "/view/jobs", "/view/cluster", "/view/workloads"):
        assert client.get(path).status_code == 401, path
    given = {"Authorization": "Bearer secret"}
    assert client.get("/view/workloads", headers=given).status_code == 200


def test_the_bundle_is_what_was_built() -> None:
    told = manifest()
    files = load_files()
    assert set(told) == {"sources", *files}
    for name, file in files.items():
        assert hashlib.sha256(file.content).hexdigest() == told[name], name
        assert gzip.decompress(file.compressed) == file.content
    assert INDEX in files


@pytest.mark.skipif(not (ROOT / "web").is_dir(), reason="the page's sources are not here")
def test_the_bundle_was_built_of_these_sources() -> None:
    """As ``web/build.mjs`` counts them. After a change of the sources: ``make web``."""
    web = ROOT / "web"
    names = ["build.mjs", "icon.svg", "index.html", "package-lock.json", "package.json"]
    names += ["src", "tsconfig.json"]
    files = itertools.chain.from_iterable(
        (web / name).rglob("*") if (web / name).is_dir() else [web / name] for name in names
    )
    named = sorted((file.relative_to(web).as_posix(), file) for file in files if file.is_file())
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}\n" for name, file in named]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == manifest()["sources"]


def test_the_sources_make_no_markup_of_data() -> None:
    for file in (ROOT / "web" / "src").rglob("*.ts*"):
        text = file.read_text("utf-8")
        for danger in ("innerHTML", "dangerouslySet", "insertAdjacent", "eval(", "document.write"):
            assert danger not in text, file


# --- events ------------------------------------------------------------------------------


def submit(client: httpx.Client, workload: str, params: Any) -> str:
    answer = client.post("/submit", json={"workload": workload, "params": params, "cache": False})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_id"])


def test_the_steps_of_a_job_are_told_in_order(client: httpx.Client) -> None:
    with stream(client, "/events") as told:
        events = iter(told)
        kind, hello, position = next(events)
        assert kind == "hello"
        assert hello["position"] == position
        assert abs(hello["time"] - time.time()) < 60
        task_id = submit(client, "echo", [1])
        seen = []
        for kind, data, number in events:
            if kind == "job" and data["task_id"] == task_id:
                seen.append((data["state"], number))
                assert "result" not in data
                assert "params" not in data
                if data["state"] == "succeeded":
                    break
    assert [state for state, _ in seen] == ["queued", "running", "succeeded"]
    # What came after the first is told to whoever comes back with its number, and nothing else.
    with stream(client, "/events", after=seen[0][1]) as told:
        events = iter(told)
        assert next(events)[0] == "hello"
        again = [next(events), next(events)]
    assert [(data["state"], number) for _, data, number in again] == seen[1:]


@pytest.mark.parametrize("after", ["", "nonsense", "ffffffff-1", "00000000-99999999999999999999"])
def test_who_comes_with_an_unknown_number_is_told_to_begin_anew(
    client: httpx.Client, after: str
) -> None:
    with stream(client, "/events", after=after) as told:
        kind, data, number = next(iter(told))
    assert kind == "reset"
    assert data["position"] == number


def test_events_of_one_job_end_with_it(
    client: httpx.Client, opened: threading.Event, master: Master
) -> None:
    task_id = submit(client, "wait", None)
    with stream(client, f"/events/{task_id}") as told:
        events = iter(told)
        assert next(events)[0] == "hello"
        submit(client, "echo", 1)  # another's
        master.cancel(task_id) if master.record(task_id).state is JobState.QUEUED else opened.set()
        seen = [(kind, data.get("task_id")) for kind, data, _ in events if kind != "progress"]
    assert seen[-1] == ("end", task_id)
    assert {other for _, other in seen} == {task_id}
    with stream(client, f"/events/{task_id}") as told:
        assert [kind for kind, _, _ in told] == ["hello", "end"]
    assert client.get("/events/unknown").status_code == 404


@pytest.mark.parametrize("kinds", ["", "jobs", "job,nothing"])
def test_unknown_kinds_are_refused(client: httpx.Client, kinds: str) -> None:
    assert client.get("/events", params={"kinds": kinds}).status_code == 422


def test_the_cluster_is_told_of_to_who_wants_that(client: httpx.Client) -> None:
    with stream(client, "/events?kinds=cluster") as told:
        news = next(data for kind, data, _ in told if kind == "cluster")
    assert news["sample"]["cpu"] == 0.75
    assert news["sample"]["memory_used"] == 400
    assert news["state"]["nodes"][0]["gpus"][0]["process_count"] == 2
    history = client.get("/view/cluster").json()
    assert history["samples"][0] == news["sample"]


def record_of(number: int, state: JobState = JobState.QUEUED, user: str = "me") -> JobRecord:
    made = JobRecord(f"{number:04}", "work", "1", {"large": 1}, 0, number, float(number), user=user)
    if state is JobState.QUEUED:
        return made
    running = advance(made, JobState.RUNNING, number + 1.0)
    if state is JobState.RUNNING:
        return running
    error = None if state is JobState.SUCCEEDED else JobFailure("Error", "why it failed")
    return advance(running, state, number + 2.0, error=error, result=[1] if error is None else None)


async def take(feed: EventFeed, after: str | None, most: int) -> tuple[list[int], str]:
    """Up to so many events after a number; their jobs, and the number of the last frame."""
    found: list[int] = []
    last = after or ""
    frames = feed.follow(lambda user: True, after=after)
    try:
        while len(found) < most:
            text = (await asyncio.wait_for(anext(frames), 5)).decode()
            for part in text.split("\n\n"):
                if "event: reset" in part:
                    found.append(-1)
                numbers = re.findall(r"^id: (\S+)$", part, re.M)
                if "event: job" in part and len(found) < most:
                    found.append(int(re.findall(r'"sequence":(\d+)', part)[0]))
                    last = numbers[0]
                elif numbers and "event: job" not in part:
                    last = numbers[0]
    finally:
        await frames.aclose()
    return found, last


@given(st.lists(st.integers(1, 7), min_size=1, max_size=8))
@settings(deadline=None, max_examples=25)
def test_a_line_that_is_cut_loses_and_doubles_nothing(pieces: list[int]) -> None:
    async def follow() -> list[int]:
        feed = EventFeed()
        last: str = feed.position
        found: list[int] = []
        numbers = itertools.count()
        for size in pieces:
            for _ in range(size):
                feed.publish(record_of(next(numbers)))
            got, last = await take(feed, last, size)
            found += got
        assert feed.followers == 0
        return found

    assert asyncio.run(follow()) == list(range(sum(pieces)))


def test_who_was_away_too_long_is_told_so() -> None:
    async def follow() -> list[int]:
        feed = EventFeed(kept=4)
        begin = feed.position
        for number in range(20):
            feed.publish(record_of(number))
        found, last = await take(feed, begin, 1)
        feed.publish(record_of(20))
        more, _ = await take(feed, last, 1)
        return found + more

    assert asyncio.run(follow()) == [-1, 20]


def test_what_is_kept_of_a_step_is_small() -> None:
    feed = EventFeed()
    feed.publish(record_of(1, JobState.SUCCEEDED))
    (event,) = feed._events
    assert event.record.result is None
    assert "large" not in str(event.record.params)


# --- lists of jobs -----------------------------------------------------------------------

STATES = list(JobState)
RECORDS = [record_of(n, STATES[n % 5], "me" if n % 3 else "you") for n in range(100)][::-1]
JOBS = Snapshot(RECORDS, "0-100")


@given(
    states=st.frozensets(st.sampled_from(STATES), max_size=3),
    text=st.sampled_from(["", "00", "WORK", "why", "nothing"]),
    user=st.sampled_from(["", "me", "you"]),
    limit=st.integers(1, 40),
    mine=st.booleans(),
)
@settings(deadline=None)
def test_pages_together_are_all_that_is_wanted(
    states: frozenset[JobState], text: str, user: str, limit: int, mine: bool
) -> None:
    wanted = Filter(states, user=user, text=text)

    def sees(owner: str) -> bool:
        return not mine or owner == "me"

    expected = [
        record.id
        for record in RECORDS
        if sees(record.user)
        and (not states or record.state in states)
        and (not user or record.user == user)
        and (
            text.lower() in f"{record.id} work"
            or (text == "why" and record.state in (JobState.FAILED, JobState.CANCELLED))
        )
    ]
    found: list[str] = []
    for offset in range(0, 100, limit):
        page = listing(JOBS, wanted, sees, offset, limit)
        found += [shown["task_id"] for shown in page["jobs"]]
        assert page["total"] == len(expected)
        assert "you" not in page["users"] or not mine
    assert found == expected
    counts = listing(JOBS, wanted, sees, 0, 0)["counts"]
    assert len(expected) == sum(counts[state] for state in states or STATES)


def test_jobs_as_they_are_listed(client: httpx.Client) -> None:
    task_id = submit(client, "boom", None)
    with stream(client, f"/events/{task_id}") as told:
        assert [kind for kind, _, _ in told][-1] == "end"
    found = client.get("/view/jobs", params={"state": "failed", "text": "on purpose"}).json()
    (shown,) = found["jobs"]
    assert shown["task_id"] == task_id
    assert len(shown["error"]["message"]) < 500
    whole = client.get(f"/view/jobs/{task_id}").json()
    assert len(whole["error"]["message"]) > 5000
    assert (whole["params"], whole["effects"], "result" in whole) == ("null", False, False)
    for bad in ("state=x", "limit=501", "offset=-1"):
        assert client.get(f"/view/jobs?{bad}").status_code == 422
    assert client.get("/view/jobs/unknown").status_code == 404
    assert client.get("/view/jobs/unknown/trace").status_code == 404
    assert client.get(f"/view/jobs/{task_id}/trace").json()["placements"]["start"] == []


def test_numbers_arrive_as_they_are(client: httpx.Client) -> None:
    """A browser would lose digits: they are sent as text."""
    task_id = submit(client, "echo", {"n": 2**70})
    with stream(client, f"/events/{task_id}") as told:
        list(told)
    whole = client.get(f"/view/jobs/{task_id}").json()
    assert whole["params"] == whole["result"] == f'{{"n": {2**70}}}'


def test_the_list_is_as_new_as_it_says(client: httpx.Client) -> None:
    task_id = submit(client, "echo", 1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        page = client.get("/view/jobs?limit=500").json()
        if any(shown["task_id"] == task_id for shown in page["jobs"]):
            return
        # (Made before the job was there, it says so.)
        with stream(client, "/events") as told:
            newest = next(iter(told))[1]["position"]
        assert int(page["position"].partition("-")[2]) < int(newest.partition("-")[2])
    pytest.fail("the job is not listed")


def test_workloads_are_told_with_their_schemas(client: httpx.Client) -> None:
    known = {one["name"]: one for one in client.get("/view/workloads").json()["workloads"]}
    assert known["default"]["schema"]["type"] == "object"
    assert known["echo"]["schema"] is None
    assert known["boom"]["summary"] == "Always fail."


# --- who sees what -----------------------------------------------------------------------


def test_one_user_sees_nothing_of_another(master: Master, tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens")
    token = file.create("me", "read")[0]
    app = create_app(master, cluster=lambda: STATE, tokens=file)
    mine = master.submit("echo", 1, user="me", cache=False)
    yours = master.submit("echo", 2, user="you", cache=False)
    mine.result(30)
    yours.result(30)
    headers = {"Authorization": f"Bearer {token}"}
    client = TestClient(app, base_url="http://127.0.0.1:8080", headers=headers)
    page = client.get("/view/jobs").json()
    assert [shown["task_id"] for shown in page["jobs"]] == [mine.id]
    assert (page["users"], page["workloads"]) == (["me"], ["echo"])
    assert client.get(f"/view/jobs/{mine.id}").status_code == 200
    for path in (f"/view/jobs/{yours.id}", f"/view/jobs/{yours.id}/trace", f"/events/{yours.id}"):
        assert client.get(path).status_code == 404, path

    async def followed() -> list[str]:
        feed = EventFeed()
        begin = feed.position
        for number, user in enumerate(["you", "me", "you", "me"]):
            feed.publish(record_of(number, JobState.RUNNING, user))
        feed.tell_progress({f"{number:04}": (number, 9) for number in range(4)})
        frames = feed.follow(lambda owner: owner == "me", after=begin)
        text = (await anext(frames) + await anext(frames)).decode()
        await frames.aclose()
        return re.findall(r'"(000\d)"', text)

    assert sorted(set(asyncio.run(followed()))) == ["0001", "0003"]


def test_the_guard_says_whose_jobs_may_be_seen() -> None:
    told = Request({"type": "http", "state": {"caller": Caller("me", "read")}})
    assert [seen_by(told)(user) for user in ("me", "you")] == [True, False]
    assert seen_by(Request({"type": "http", "state": {}}))("you")


# --- telemetry ---------------------------------------------------------------------------


def test_a_sample_adds_up_what_nodes_know() -> None:
    unknown = NodeState("m", "other", 2.0, 2.0)
    gone = NodeState("x", "gone", 8.0, 8.0, alive=False, cpu_fraction=1.0)
    found = sample(ClusterState((*STATE.nodes, unknown, gone), 5.0))
    assert (found["cpu"], found["cpus_total"], found["store_used"]) == (0.75, 6.0, 5)
    assert found["gpus"]["GPU-1"]["temperature"] == 61.0
    nothing = sample(ClusterState((unknown,), 5.0))
    assert (nothing["cpu"], nothing["memory_used"], nothing["gpus"]) == (None, None, {})


def test_a_cluster_that_cannot_be_asked_is_no_error_of_the_page() -> None:
    def away() -> ClusterState:
        raise SessionError("Ray is not there now")

    history = Samples(away).history()
    assert (history["samples"], history["state"]) == ([], None)
    assert "Ray is not there now" in history["reason"]


def test_a_row_is_json_of_any_job() -> None:
    for state in JobState:
        shown = row(record_of(1, state))
        assert shown["state"] == state.value
        assert (shown["error"] is None) == (state not in (JobState.FAILED, JobState.CANCELLED))
