"""The page in a real Chromium, in front of a real `agentic-ray serve` with real jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentic_ray.master import Master, Registry
from agentic_ray.service.http import create_app
from agentic_ray.telemetry import ClusterState, GpuState, NodeState

from .browser import chromium, launch, violations
from .serving import served

playwright_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
expect = playwright_api.expect

TOKEN = "the-token-of-this-test"
WORKLOADS = '''
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

import agentic_ray as ar


class Survey(BaseModel):
    tiles: int = Field(8, ge=1, description="Tiles of the sky")
    seconds: float = Field(0.01, ge=0)
    method: Literal["sum", "max"] = "sum"
    gate: str = Field("", description="The second half of the tiles waits for this file")


@ar.workload("survey", cache=False)
def survey(params: Survey) -> int:
    """Look at each tile."""
    print("surveying", params.tiles, "tiles", flush=True)
    seconds, gate, half = params.seconds, params.gate, params.tiles // 2

    def tile(n):
        while gate and n >= half and not Path(gate).exists():
            time.sleep(0.05)
        time.sleep(seconds)
        return n

    put = {"sum": lambda a, b: a + b, "max": max}[params.method]
    return ar.map_reduce(tile, range(params.tiles), put)


@ar.workload("boom", cache=False)
def boom(params) -> None:
    raise ValueError("<b>on purpose</b>")
'''
LONG = 60_000
"""Milliseconds: the machine may be busy."""

WIDE, NARROW = (1280, 800), (390, 844)


class Service:
    """A running ``agentic-ray serve`` with a token."""

    def __init__(self, workloads: Path) -> None:
        command = [sys.executable, "-m", "agentic_ray.cli", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--num-cpus", "2", "--workloads", str(workloads)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "AGENTIC_RAY_TOKEN": TOKEN},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        self.url = found[0]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    def submit(self, workload: str, params: Any = None, **options: Any) -> str:
        body = {"workload": workload, "params": params, **options}
        answer = self.http.post("/submit", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def until(self, task_id: str, *states: str, seconds: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            found: dict[str, Any] = self.http.get(f"/view/jobs/{task_id}").json()
            if found["state"] in states:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    file = tmp_path_factory.mktemp("workloads") / "mine.py"
    file.write_text(WORKLOADS)
    made = Service(file)
    try:
        made.until(made.submit("survey", {"tiles": 2}), "succeeded", seconds=240)  # Ray is there
        yield made
        made.process.send_signal(signal.SIGTERM)
        assert made.process.wait(60) == 0
    finally:
        made.http.close()
        made.process.kill()
        made.process.communicate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    expect.set_options(timeout=LONG)
    with playwright_api.sync_playwright() as playwright:
        made = launch(playwright)
        yield made
        made.close()


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens pages; whatever they complain about, or load from elsewhere, fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(
        url: str, path: str = "", size: tuple[int, int] = WIDE, token: str = TOKEN, **options: Any
    ) -> Any:
        width, height = size
        options = {"locale": "en-GB", **options}
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(LONG)
        contexts.append(context)
        if token:
            name = "agentic-ray-token"
            context.add_init_script(f"sessionStorage.setItem('{name}', '{token}')")
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("console", complain)
        page.on("request", lambda request: check(url, request.url))
        page.goto(f"{url}/{path}")
        return page

    def complain(message: Any) -> None:
        # (That a token is refused, or the line is cut, the browser says too.)
        expected = re.search(" 401 |net::ERR_(CONN|INTERNET)", message.text)
        if message.type in ("error", "warning") and not expected:
            complaints.append(f"{message.type}: {message.text}")

    def check(own: str, asked: str) -> None:
        if not asked.startswith((f"{own}/", "blob:")) or TOKEN in asked:
            complaints.append(f"asked for {asked}")

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def test_signing_in(service: Service, open_page: Open) -> None:
    page = open_page(service.url, token="")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert violations(page) == []
    page.get_by_label("Token").fill("wrong")
    page.get_by_label("Token").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("does not accept")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Cluster")).to_be_visible()
    expect(page.locator(".line")).to_have_text("Live")
    # Kept for this tab alone.
    assert page.evaluate("sessionStorage.getItem('agentic-ray-token')") == TOKEN
    assert TOKEN not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
    other = page.context.new_page()
    other.goto(service.url)
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('agentic-ray-token')") is None


def test_the_overview_shows_the_cluster(service: Service, open_page: Open) -> None:
    page = open_page(service.url)
    expect(page.get_by_text("No GPU: everything runs on the CPU.")).to_be_visible()
    for what in ("CPU", "Memory", "Object store"):
        chart = page.get_by_role("img", name=re.compile(f"^{what} over time; now "))
        expect(chart).to_be_visible()
        assert is_drawn(page, chart.locator("canvas"))
    counted = page.locator(".counts .succeeded strong")
    before = int(counted.inner_text())
    service.submit("survey", {"tiles": 1})
    expect(counted).to_have_text(str(before + 1))


def test_a_job_is_seen_from_beginning_to_end(
    service: Service, open_page: Open, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    page = open_page(service.url, "#/jobs?workload=survey")
    expect(page.locator(".line")).to_have_text("Live")
    task_id = service.submit("survey", {"tiles": 60, "seconds": 0.1, "gate": str(gate)})
    row = page.get_by_role("row").filter(has_text=task_id[:8])
    expect(row).to_be_visible()
    expect(row).to_contain_text("running")
    bar = row.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuemax", "60")
    expect(row).to_contain_text(re.compile(r"\d+ / 60 · .* left"))
    gate.touch()
    expect(row).to_contain_text("succeeded")
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name="survey", level=1)).to_be_visible()
    assert page.url.endswith(f"#/jobs/{task_id}")


def test_filters_are_in_the_address(service: Service, open_page: Open) -> None:
    failed = service.submit("boom")
    service.until(failed, "failed")
    page = open_page(service.url, "#/jobs")
    page.get_by_role("button", name=re.compile("^failed")).click()
    page.get_by_label("Workload").select_option("boom")
    page.get_by_label("Search").fill("on purpose")
    expect(page).to_have_url(re.compile("state=failed&workload=boom&text=on\\+purpose"))
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    page.reload()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(failed[:8])
    expect(page.get_by_label("Search")).to_have_value("on purpose")
    expect(page.get_by_label("Workload")).to_have_value("boom")
    pressed = page.get_by_role("button", name=re.compile("^failed"))
    expect(pressed).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Search").fill("something else")
    expect(page.get_by_text("No job fits these filters.")).to_be_visible()
    page.get_by_role("link", name="Clear filters").click()
    expect(page.locator("tbody tr").first).to_be_visible()


def test_data_is_text_and_never_markup(service: Service, open_page: Open) -> None:
    task_id = service.submit("boom", {"<img src=x>": "<script>"})
    service.until(task_id, "failed")
    page = open_page(service.url, f"#/jobs/{task_id}?tab=data")
    expect(page.get_by_text("<b>on purpose</b>")).to_be_visible()
    expect(page.get_by_text('{"<img src=x>": "<script>"}')).to_be_visible()
    assert page.locator("main img, main b:has-text('on purpose'), main script").count() == 0


def test_a_job_is_cancelled(service: Service, open_page: Open) -> None:
    task_id = service.submit("survey", {"tiles": 2000, "seconds": 0.1})
    page = open_page(service.url, f"#/jobs/{task_id}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".title .badge")).to_have_text("cancelled")
    assert service.until(task_id, "cancelled")["error"]["type"] == "JobCancelledError"
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_where_a_job_ran_and_why(service: Service, open_page: Open) -> None:
    task_id = service.submit("survey", {"tiles": 30, "seconds": 0.02})
    service.until(task_id, "succeeded")
    page = open_page(service.url, f"#/jobs/{task_id}")
    for figure in ("E Efficiency", "L Imbalance", "D Decomposition", "F Recovery"):
        card = page.locator(".figures li").filter(has_text=figure.partition(" ")[2])
        expect(card.get_by_role("heading", name=figure)).to_be_visible()
        assert len(card.locator("p").inner_text()) > 40
        assert 0 <= float(card.locator(".now").inner_text()) <= 1
    canvas = page.get_by_role("img", name=re.compile("^Timeline of [0-9]+ bundles on"))
    assert is_drawn(page, canvas)
    box = canvas.bounding_box()
    for part in range(20, 100):  # somewhere on the first line there is a bundle
        canvas.click(position={"x": box["width"] * part / 100, "y": 30})
        if page.locator(".chosen").count():
            break
    expect(page.locator(".chosen")).to_contain_text("Why there")
    page.get_by_role("button", name="Zoom in").click()
    expect(page.get_by_role("button", name="Show all")).to_be_enabled()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export for Perfetto").click()
    events = json.loads(Path(download.value.path()).read_text())["traceEvents"]
    assert sum(event["args"]["items"] for event in events if event["ph"] == "X") == 30

    tabs = page.get_by_role("navigation", name="Parts of the job")
    tabs.get_by_role("link", name="Graph").click()
    graph = page.get_by_role("img", name=re.compile("^Graph of [0-9]+ tasks"))
    expect(graph.first).to_be_visible()
    tabs.get_by_role("link", name="Placements").click()
    reason = page.locator(".reasons button").first
    times = reason.locator(".many").inner_text()
    wanted = reason.inner_text().removesuffix(times).strip()
    reason.click()
    rows = page.get_by_role("group", name="Placements").locator("tbody tr")
    expect(rows).to_have_count(int(times))
    expect(rows.first).to_contain_text(wanted)
    page.reload()
    expect(rows).to_have_count(int(times))
    tabs.get_by_role("link", name="Log").click()
    expect(page.get_by_role("log")).to_contain_text("surveying 30 tiles")
    tabs.get_by_role("link", name="Events").click()
    expect(page.get_by_role("cell", name="finished").first).to_be_visible()


def test_a_job_is_submitted_again_with_changes_and_compared(
    service: Service, open_page: Open
) -> None:
    first = service.submit("survey", {"tiles": 5}, priority=2)
    service.until(first, "succeeded")
    page = open_page(service.url, f"#/jobs/{first}")
    page.get_by_role("link", name="Submit again with changes").click()
    expect(page.get_by_label("tiles")).to_have_value("5")
    expect(page.get_by_label("seconds", exact=True)).to_have_value("0.01")
    expect(page.get_by_label("Priority")).to_have_value("2")
    page.get_by_label("tiles").fill("0")
    page.get_by_role("button", name="Submit").click()
    assert page.evaluate("!document.querySelector('#field-tiles').checkValidity()")
    page.get_by_label("tiles").fill("7")
    page.get_by_label("method").select_option("max")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".title .badge")).to_have_text("succeeded")
    second = page.url.rpartition("/")[2]
    found = service.until(second, "succeeded")
    params = {"tiles": 7, "seconds": 0.01, "method": "max", "gate": ""}
    assert json.loads(found["params"]) == params
    assert (found["result"], found["priority"]) == ("6", 2)

    page.goto(f"{service.url}/#/jobs?workload=survey")
    for task_id in (first, second):
        page.get_by_label(f"Choose job {task_id[:8]} to compare").check()
    page.get_by_role("button", name="Compare (2 of 2 chosen)").click()
    expect(page).to_have_url(re.compile(f"a={first}&b={second}"))
    tasks = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="Tasks"))
    expect(tasks).to_contain_text("+2 (+40 %)")
    expect(page.locator("mark").first).to_contain_text("tiles")


def test_json_keeps_all_digits(service: Service, open_page: Open) -> None:
    page = open_page(service.url, "#/submit?workload=default")
    page.get_by_role("button", name="JSON").click()
    page.get_by_label("Parameters as JSON").fill(f'{{"data": [{10**20}, 1]}}')
    page.get_by_role("button", name="Form").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot hold exactly")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".title .badge")).to_have_text("succeeded")
    page.get_by_role("link", name="Input and result").click()
    expect(page.get_by_text(str(10**40 + 1))).to_be_visible()
    page.get_by_role("link", name="Submit again with changes").click()
    expect(page.get_by_label("Parameters as JSON")).to_have_value(f'{{"data": [{10**20}, 1]}}')


VIEWS = ("#/overview", "#/jobs", "#/jobs/{id}", "#/jobs/{id}?tab=graph")
MORE = ("#/jobs/{id}?tab=placements", "#/jobs/{id}?tab=log", "#/submit", "#/compare?a={id}&b={bad}")


@pytest.mark.parametrize(
    ("size", "scheme", "locale"),
    [(WIDE, "light", "en-GB"), (NARROW, "dark", "zh-CN")],
)
def test_everybody_can_use_each_view(
    service: Service, open_page: Open, size: tuple[int, int], scheme: str, locale: str
) -> None:
    """axe-core finds nothing, nothing is cut off at the side, and the language is one."""
    found = service.http.get("/view/jobs?limit=500").json()["jobs"]
    done = next(row["task_id"] for row in found if row["metrics"] and not row["error"])
    bad = next(row["task_id"] for row in found if row["state"] == "failed")
    page = open_page(service.url, "#/overview", size, color_scheme=scheme, locale=locale)
    for view in (*VIEWS, *MORE, "#/jobs/{bad}"):
        page.goto(f"{service.url}/{view.format(id=done, bad=bad)}")
        expect(page.get_by_role("heading").first).to_be_attached()
        expect(page.locator("main")).not_to_contain_text(re.compile("^(Loading|加载中)$"))
        page.wait_for_timeout(300)
        assert violations(page) == [], view
        page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        words = page.locator(".top nav").inner_text()
        assert ("作业" in words) == (locale == "zh-CN")
        assert page.evaluate("document.documentElement.lang")[:2] == locale[:2]
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 29)"
    assert dark == (scheme == "dark")


def test_language_and_colours_are_chosen_and_kept(service: Service, open_page: Open) -> None:
    page = open_page(service.url, "#/jobs")
    page.get_by_label("Language").select_option("zh")
    expect(page.get_by_role("heading", name="作业", level=1)).to_be_visible()
    page.get_by_label("配色").select_option("dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.get_by_role("heading", name="作业", level=1)).to_be_visible()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_keyboard_is_enough(service: Service, open_page: Open) -> None:
    page = open_page(service.url, "#/overview")
    expect(page.get_by_role("heading", name="Cluster")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".counts a").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#/jobs\\?state=queued"))
    expect(page.locator("main")).to_be_focused()
    chip = page.get_by_role("button", name=re.compile("^failed"))
    for _ in range(8):
        page.keyboard.press("Tab")
        if chip.evaluate("element => element === document.activeElement"):
            break
    expect(chip).to_be_focused()
    page.keyboard.press("Space")
    expect(page).to_have_url(re.compile("state=queued%2Cfailed"))


def test_a_cut_line_is_mended_and_nothing_is_missed(open_page: Open) -> None:
    """Jobs of which events came while the service could not be reached are there afterwards."""
    workloads = Registry()
    workloads.register("echo", lambda params: params)
    with Master(workloads=workloads) as master, served(app_of(master)) as url:
        page = open_page(url, "#/jobs", token="")
        expect(page.locator(".line")).to_have_text("Live")
        page.context.set_offline(True)
        app_page(master).close()  # ends the stream, as a service that stops does
        expect(page.locator(".line")).to_contain_text("Connection lost")
        job = master.submit("echo", 1)
        job.result(30)
        app_page(master).feed._closed = False
        page.context.set_offline(False)
        expect(page.locator(".line")).to_have_text("Live")
        row = page.get_by_role("row").filter(has_text=job.id[:8])
        expect(row).to_contain_text("succeeded")


def test_each_gpu_is_shown(open_page: Open) -> None:
    cards = [
        GpuState(
            f"GPU-{number}",
            number,
            "NVIDIA H200",
            memory_total_bytes=141 << 30,
            memory_used_bytes=(50 * number) << 30,
            utilization=0.4 * number,
            process_count=number,
            temperature_celsius=40.0 + number,
            power_watts=300.0,
            healthy=number < 2,
            reason=None if number < 2 else "XID 79: fell off the bus",
        )
        for number in range(3)
    ]
    unknown = GpuState("GPU-9", 9, "Another card")
    node = NodeState("a" * 40, "host-1", 8.0, 2.0, gpus=(*cards, unknown), cpu_fraction=0.3)
    gone = NodeState("b" * 40, "host-2", 8.0, 8.0, alive=False)
    with Master(workloads=Registry()) as master, served(app_of(master, node, gone)) as url:
        for size, scheme in ((WIDE, "light"), (NARROW, "dark")):
            page = open_page(url, "", size, token="", color_scheme=scheme)
            shown = page.locator(".cards li")
            expect(shown).to_have_count(4)
            second = shown.nth(1)
            for text in ("NVIDIA H200", "40 %", "50.0 GiB of 141 GiB", "41 °C", "300 W", "host-1"):
                expect(second).to_contain_text(text)
            expect(second.locator("dl div").nth(2)).to_have_text("Processes1")
            expect(shown.nth(2)).to_contain_text("XID 79: fell off the bus")
            expect(shown.nth(3).locator("dd")).to_have_text(["–", "–", "–"])
            expect(page.get_by_role("img", name=re.compile("^GPUs over time"))).to_be_visible()
            expect(page.get_by_role("row").filter(has_text="host-2")).to_contain_text("gone")
            assert violations(page) == []


def test_ten_thousand_jobs_are_paged(open_page: Open) -> None:
    workloads = Registry()
    started = threading.Event()
    workloads.register("many", lambda params: started.wait(60))
    with Master(workloads=workloads, held=True, max_queued=20_000) as master:
        for number in range(10_000):
            master.submit("many", number, user=f"user {number % 7}", cache=False)
        with served(app_of(master)) as url:
            page = open_page(url, "#/jobs?user=user+3", token="")
            expect(page.get_by_text("1\u202f429 jobs")).to_be_visible()
            page.get_by_role("button", name="Next").click()
            expect(page).to_have_url(re.compile("offset=50"))
            expect(page.get_by_text("Page 2 of 29")).to_be_visible()
            assert page.locator("tbody tr").count() == 50
        started.set()
        master.close(drain=False)


_apps: dict[int, Any] = {}


def app_of(master: Master, *nodes: NodeState) -> Any:
    """An app in front of a master that has no cluster."""
    _apps[id(master)] = create_app(
        master, cluster=lambda: ClusterState(nodes, time.time()), health=lambda: ("ok", "")
    )
    return _apps[id(master)]


def app_page(master: Master) -> Any:
    return _apps[id(master)].state.page


def is_drawn(page: Any, canvas: Any) -> bool:
    """Whether anything but nothing is on a canvas."""
    canvas.wait_for()
    page.wait_for_timeout(200)
    return bool(
        canvas.first.evaluate(
            """canvas => canvas.getContext('2d')
                .getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0)"""
        )
    )
