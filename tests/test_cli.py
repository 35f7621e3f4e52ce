"""The command line: help, exit codes, jobs (against a service in-process), run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import uvicorn

from agentic_ray.cli.app import cli, run_cli
from agentic_ray.cli.simulate import WORKLOAD_NAMES
from agentic_ray.master import Master, Registry
from agentic_ray.schedule.workloads import WORKLOADS
from agentic_ray.service.http import create_app

COMMANDS = sorted(cli.commands)


def command(
    *arguments: str, cwd: Path | None = None, timeout: float = 90
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentic_ray.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        check=False,
    )


def test_there_are_the_commands_that_are_real() -> None:
    assert (
        sorted(
            [
                "demo",
                "run",
                "submit",
                "status",
                "result",
                "logs",
                "cancel",
                "jobs",
                "nodes",
                "join",
                "serve",
                "doctor",
                "simulate",
                "journal",
                "master",
                "audit",
                "token",
                "retry",
                "events",
                "top",
                "upload",
                "replay",
                "explain",
                "completion",
            ]
        )
        == COMMANDS
    )


def test_the_help_of_simulate_names_all_workloads() -> None:
    assert sorted(WORKLOADS) == sorted(WORKLOAD_NAMES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([name, "--help"]) == 0
    assert "Usage: agentic-ray" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    sorted(
        set(COMMANDS)
        - {"run", "serve", "join", "journal", "master", "token", "audit", "completion", "top"}
    ),
)
def test_commands_that_print_data_can_print_json(name: str) -> None:
    assert "--json" in [option for p in cli.commands[name].params for option in p.opts]


@pytest.mark.parametrize("group", ["journal", "master", "token", "audit"])
def test_every_command_of_a_group_has_help(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands = cli.commands[group]
    assert isinstance(commands, click.Group)
    for name in commands.commands:
        assert run_cli([group, name, "--help"]) == 0
        assert f"Usage: agentic-ray {group} {name}" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_in_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["completion", shell]) == 0
    assert "_AGENTIC_RAY_COMPLETE" in capsys.readouterr().out


def test_bash_completes_commands() -> None:
    script = (
        'eval "$(agentic-ray completion bash)"; COMP_WORDS=(agentic-ray master st); COMP_CWORD=2; '
        '_agentic_ray_completion agentic-ray; echo "${COMPREPLY[@]}"'
    )
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["start", "status", "stop"]


def test_help_loads_nothing_large() -> None:
    code = (
        "import sys\n"
        "from agentic_ray.cli.app import run_cli\n"
        "run_cli(['--help'])\n"
        "print(sorted({'ray', 'numpy', 'fastapi', 'httpx', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["submit"],
        ["submit", "--data", "[NaN]"],
        ["submit", "--data", "[1"],
        ["submit", "--data", "[1]", "--params", "{}"],
        ["submit", "--params", "@no/such/file"],
        ["serve", "--port", "x"],
        ["serve", "--port", "99999"],
        ["nodes", "--num-cpus", "0"],
        ["jobs", "--state", "lost"],
        ["run"],
        ["run", "no_such_script.py"],
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(arguments) == 2
    assert "Error" in capsys.readouterr().err


# --- jobs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    registry = Registry()
    registry.register("default", lambda params: sum(x * x for x in params["data"]))
    registry.register("boom", lambda params: 1 / 0)
    held = threading.Event()
    registry.register("held", lambda params: held.wait(30))
    with Master(workloads=registry) as master:
        server = uvicorn.Server(uvicorn.Config(create_app(master), port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        held.set()
        server.should_exit = True
        thread.join()


@pytest.fixture
def ask(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AGENTIC_RAY_URL", url)

    def run(*arguments: str, code: int = 0) -> str:
        assert run_cli(arguments) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def test_submit_status_result(ask: Any, tmp_path: Path) -> None:
    task_id = ask("submit", "--data", "[1, 2, 3]").strip()
    assert ask("result", task_id) == "14\n"
    assert json.loads(ask("result", task_id, "--json")) == {"task_id": task_id, "result": 14}
    assert "state            succeeded" in ask("status", task_id)
    assert json.loads(ask("status", task_id, "--json"))["result"] == 14
    file = tmp_path / "params.json"
    file.write_text('{"data": [4]}')
    assert ask("submit", "--params", f"@{file}", "--wait") == "16\n"
    assert task_id in ask("jobs")
    assert json.loads(ask("jobs", "--json", "--limit", "1"))[0]["state"] == "succeeded"


def test_cancel_by_command(ask: Any) -> None:
    task_id = json.loads(ask("submit", "held", "--params", "1", "--json"))["task_id"]
    assert "is running after" in ask("result", task_id, "--timeout", "0.1", code=1)
    assert "told to stop" in ask("cancel", task_id)
    assert json.loads(ask("cancel", task_id, "--json"))["cancel_requested"]


def test_failures_are_one_line_and_exit_code_1(ask: Any) -> None:
    said = ask("submit", "boom", "--params", "1", "--wait", code=1)
    assert said == "error: ZeroDivisionError: division by zero\n"
    assert "error: no job 'x'" in ask("status", "x", code=1)
    assert "no workload 'nope'" in ask("submit", "nope", "--params", "1", code=1)
    assert "agentic-ray serve" in ask("jobs", "--url", "http://127.0.0.1:9", code=1)
    assert "http://" in ask("jobs", "--url", "ftp://x", code=1)


def test_ctrl_c_is_exit_code_130(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agentic_ray.service.Client.jobs", interrupted)
    assert ask("jobs", code=130).strip() == "interrupted"


def test_a_reader_that_has_enough_is_no_error(url: str) -> None:
    line = f"{sys.executable} -m agentic_ray.cli jobs --url {url} | true"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


# --- run ---------------------------------------------------------------------------------

SCRIPT = """
import sys
import agentic_ray as ar
import beside

FACTOR = 3

def scaled(x):
    return x * FACTOR

if __name__ == "__main__":
    print(sys.argv, ar.get_session().slots)
    print(ar.map_reduce(scaled, range(5), lambda a, b: a + b), beside.VALUE)
    mode = sys.argv[1] if len(sys.argv) > 1 else "none"
    if mode == "exit":
        sys.exit(7)
    if mode == "text":
        sys.exit("said at the end")
    if mode == "raise":
        raise KeyError("of the user")
    if mode == "interrupt":
        raise KeyboardInterrupt
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("VALUE = 'beside'\n")
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "code", "said"),
    [
        ("--option=x", 0, ""),
        ("exit", 7, ""),
        ("text", 1, "said at the end"),
        ("raise", 1, "KeyError: 'of the user'"),
        ("interrupt", 130, "interrupted"),
    ],
)
def test_run(script: Path, mode: str, code: int, said: str) -> None:
    done = command("run", "--num-cpus", "1", str(script), "--", mode)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[:2] == [f"['{script}', '{mode}'] 1", "30 beside"]
    assert said in done.stderr
    if mode == "raise":
        assert f'File "{script}", line 20, in <module>' in done.stderr
        assert "agentic_ray/cli" not in done.stderr


def test_a_script_with_a_syntax_error_is_told_without_starting_ray(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("def f(:\n")
    done = command("run", str(file))
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert "agentic_ray/cli" not in done.stderr


@pytest.mark.slow
def test_nodes_and_an_address_where_nobody_is() -> None:
    done = command("nodes", "--num-cpus", "1", "--json")
    (node,) = json.loads(done.stdout)["nodes"]
    assert (node["alive"], node["cpus_total"]) == (True, 1)
    assert node["gpus"] or node["gpus_reason"]
