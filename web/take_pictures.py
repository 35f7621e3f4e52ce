"""Takes the pictures of the page from a real `agentic-ray serve` with real jobs.

``make screenshots``, or:

    python web/take_pictures.py [FOLDER]

Needs Chromium, and the extra ``dev``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.service.browser import launch

ROOT = Path(__file__).parents[1]

WORKLOADS = '''
import time
from typing import Literal

from pydantic import BaseModel, Field

import agentic_ray as ar


class Survey(BaseModel):
    tiles: int = Field(240, ge=1, le=20_000, description="Tiles that the sky is cut into")
    seconds: float = Field(0.02, ge=0, description="How long each tile is looked at")
    method: Literal["sum", "max"] = Field("sum", description="How tiles are put together")


@ar.workload("sky-survey", cache=False)
def survey(params: Survey) -> float:
    """Look at each tile of the sky, and put the tiles together."""
    print(f"{params.tiles} tiles, {params.method}", flush=True)
    seconds = params.seconds

    def look(tile):
        time.sleep(seconds)
        return float(tile % 17)

    def brighter(a, b):
        return max(a, b)

    def add(a, b):
        return a + b

    return ar.map_reduce(look, range(params.tiles), brighter if params.method == "max" else add)


@ar.workload("calibrate", cache=False)
def calibrate(params: dict[str, int]) -> None:
    """Fails, as a job whose input is not there does."""
    raise FileNotFoundError("no dark frame for camera " + str(params["camera"]))
'''


class Service:
    """A running service, and what is asked of it."""

    def __init__(self, file: Path) -> None:
        command = [sys.executable, "-m", "agentic_ray.cli", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--num-cpus", "2", "--workloads", str(file)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAY_ADDRESS": "local"},
        )
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found, "the service does not start"
        self.url = found[0]
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=60)

    def submit(self, workload: str, params: Any, **options: Any) -> str:
        body = {"workload": workload, "params": params, **options}
        return str(self.http.post("/submit", json=body).raise_for_status().json()["task_id"])

    def until(self, task_id: str, *states: str) -> None:
        while self.http.get(f"/status/{task_id}").json()["state"] not in states:
            time.sleep(0.2)

    def until_part(self, task_id: str, part: float) -> None:
        """Until a job has done a part of its tasks."""
        while True:
            trace = self.http.get(f"/view/jobs/{task_id}/trace").json()
            if trace["items_total"] and trace["items_done"] >= part * trace["items_total"]:
                return
            time.sleep(0.2)


def take(service: Service, folder: Path) -> None:
    """Have jobs run, and take the pictures."""
    first = service.submit("sky-survey", {"tiles": 400, "seconds": 0.02}, user="vera")
    service.until(first, "succeeded")
    service.until(service.submit("calibrate", {"camera": 3}, user="edwin"), "failed")
    for data in ([1, 2, 3, 4, 5], [2.5, 3.5]):
        task_id = service.submit("default", {"data": data}, user="henrietta")
        service.until(task_id, "succeeded")
    best = service.submit("sky-survey", {"tiles": 600, "seconds": 0.03, "method": "max"})
    service.until(best, "succeeded")
    service.http.post(f"/cancel/{service.submit('sky-survey', {'tiles': 9000}, user='edwin')}")
    with sync_playwright() as playwright:
        browser = launch(playwright)

        def picture(name: str, path: str, width: int, height: int, **options: Any) -> None:
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            page = context.new_page()
            page.goto(f"{service.url}/{path}")
            page.wait_for_timeout(15_000 if "overview" in path else 2_000)
            page.screenshot(path=folder / f"{name}.png")
            context.close()
            print(folder / f"{name}.png")

        english: dict[str, Any] = {"locale": "en-GB", "color_scheme": "light"}
        picture("page-job", f"#/jobs/{best}", 1280, 800, **english)
        long = service.submit("sky-survey", {"tiles": 4000, "seconds": 0.03}, user="vera")
        others = [service.submit("sky-survey", {"tiles": 2000}, user="edwin") for _ in range(2)]
        service.until_part(long, 0.1)
        picture("page-overview", "#/overview", 1280, 900, **english)
        picture("page-jobs-dark", "#/jobs", 1280, 620, locale="en-GB", color_scheme="dark")
        picture("page-narrow-zh", "#/jobs", 390, 844, locale="zh-CN", color_scheme="light")
        for task_id in (long, *others):
            service.http.post(f"/cancel/{task_id}")
        browser.close()


def main(folder: Path) -> None:
    """Start a service, take the pictures, end it."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "workloads.py"
        file.write_text(WORKLOADS)
        service = Service(file)
        try:
            take(service, folder)
        finally:
            service.http.close()
            service.process.terminate()
            service.process.communicate()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")
