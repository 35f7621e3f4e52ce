"""Malformed bodies, headers and connections by the hundred thousand: what they do to a service.

    python benchmarks/hostile.py [--json] [--requests N] [--seed N]

Starts ``agentic-ray serve`` with a journal, Ray left out (nothing of this reaches a job), and sends
it nonsense over loopback by many connections at once. Every answer must blame the client: an answer
of 500 and above fails the run, as does a service that is dead, does not accept a good job, or holds
much more memory in the end. Then it measures the processor time that a refused body takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

GOALS: Final = {"answers_of_5xx": 0.0, "grown_mb": 100.0, "worst_cpu_ms_a_mb": 50.0}
_SERVER = """
from agentic_ray.cli import main
from agentic_ray.service import hosting

hosting.SessionHost.start = lambda self: self._become("ok")
main()
"""
_RUNNERS: Final = "agentic_ray.master.runners"
_AT_ONCE: Final = 48
_SECONDS: Final = 300.0
_MORE_SECONDS: Final = 1.0
_MEGABYTE: Final = 1_000_000

Make = Callable[[random.Random], bytes]


# --- nonsense -------------------------------------------------------------------------------


def some_bytes(chance: random.Random, most: int = 400) -> bytes:
    """Any bytes."""
    return chance.randbytes(chance.randrange(most))


def body_of(chance: random.Random) -> bytes:
    """A body that no submit has."""
    n = chance.randrange(1, 200)
    text = chance.choice(
        (
            "[" * n,
            "{" + '"a":' * n,
            '{"data":' + "[" * n + "]" * n + "}",
            '{"data":[' + "1," * n + "]}",
            '{"data":[1],"data":[2]}',
            '{"data":["' + "\\ud800" * n + '"]}',
            '{"data":"' + "x" * n,
            '{"data":[' + "9" * 25 * n + "e999999999]}",
            '{"data":[NaN,Infinity]}',
            '{"data":[1],"priority":' + "9" * n + "}",
            '{"data":[1],"timeout_seconds":-1e' + str(n) + "}",
            '{"data":[1],"tags":' + json.dumps(["t"] * (20 + n)) + "}",
            '{"workload":"' + "w" * n + '","params":{}}',
            '{"workload":"matmul","params":{"a":{"ref":"../../etc/passwd"},"b":[[1]]}}',
            '{"workload":"array_expression","params":{"arrays":[],"expression":'
            + '["add",' * n
            + "1"
            + ",1]" * n
            + "}}",
            "null",
            "",
            '{"data":{"ref":"nothing-here.npy"}}',
            '{"user":"' + "u" * (256 + n) + '","data":[1]}',
            "\ufeff{}",
            "{'data': [1]}",
            '{"data":[1]} trailing',
        )
    )
    made = text.encode("utf-8")
    if chance.random() < 0.3:
        at = chance.randrange(len(made) + 1)
        made = made[:at] + some_bytes(chance, 8) + made[at:]
    return made


def bad_body(chance: random.Random) -> bytes:
    """A good head, and a body that no submit has."""
    body = body_of(chance) if chance.random() < 0.8 else some_bytes(chance)
    if body == b'{"data":[1]}':
        body = b""
    return _request(b"POST", b"/submit", body, b"Content-Type: application/json\r\n")


def bad_header(chance: random.Random) -> bytes:
    """A head that is broken, or asks for what cannot be."""
    n = chance.randrange(1, 3000)
    line = chance.choice(
        (
            b"Content-Length: -1",
            b"Content-Length: 1" + b"0" * n,
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked\r\n\r\nZZ",
            b"Content-Encoding: gzip",
            b"Host: evil.example",
            b"Host: [::1]evil.com",
            b"Origin: https://evil.example",
            b"Authorization: Bearer " + b"x" * n,
            b"Authorization: " + some_bytes(chance).replace(b"\r", b"").replace(b"\n", b""),
            b"no colon here",
            b": no name",
            b"X-" + b"a" * n + b": 1",
            b"X-Long: " + b"b" * (20 * n),
            b"\r\n".join(b"X-%d: 1" % i for i in range(n % 300)),
            b"X-Null: a\0b",
            b"X-High: \xff\xfe",
            b"Idempotency-Key: " + b"k" * n,
            b"Idempotency-Key: a\r\nIdempotency-Key: b",
            b"Range: bytes=" + str(chance.randrange(1 << 70)).encode() + b"-1",
            b"Accept: " + b"application/json;q=nan," * (n % 50),
            b"Last-Event-ID: " + b"9" * n,
            b"Content-Type: application/json; charset=utf-7",
            b"Content-Digest: sha-256=:????:",
            b"Expect: 100-continue",
            b"Upgrade: websocket\r\nConnection: Upgrade",
        )
    )
    path = chance.choice(
        (
            b"/submit",
            b"/status/" + b"x" * (n % 500),
            b"/status/%00",
            b"/status/%ff%fe",
            b"/result/..%2f..%2fetc%2fpasswd",
            b"/jobs?limit=-1",
            b"/jobs?limit=" + b"9" * 40,
            b"/jobs?cursor=" + b"9" * 30,
            b"/jobs?created_after=nan",
            b"/jobs?state=none&state=%00",
            b"/logs/x?first=-5",
            b"/data/..",
            b"/data/%2e%2e%2fx",
            b"/cancel/none",
            b"/retry/" + some_bytes(chance, 20).hex().encode(),
            b"/view/jobs?offset=-1",
            b"/view/jobs?limit=" + b"9" * 30,
            b"/events/none",
            b"/page/../../setup.py",
            b"/openapi.json?x=1",
            b"//",
            b"*",
            b"http://elsewhere/",
        )
    )
    method = chance.choice((b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"PATCH", b"TRACE", b"X"))
    return _request(method, path, b"", line + b"\r\n")


def bad_connection(chance: random.Random) -> bytes:
    """Bytes that are no request, or the beginning of one."""
    whole = _request(b"POST", b"/submit", b'{"data":[1]}', b"Content-Type: application/json\r\n")
    return chance.choice(
        (
            b"",
            some_bytes(chance),
            whole[: chance.randrange(len(whole) - 1)],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(200),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /healthz\r\n\r\n",
            b"GET /healthz HTTP/9.9\r\n\r\n",
            b"\r\n" * chance.randrange(200),
            b"GET / HTTP/1.1\r\n" * chance.randrange(100),
            b"\0" * chance.randrange(2000),
        )
    )


def _request(method: bytes, path: bytes, body: bytes, more: bytes) -> bytes:
    host = b"" if b"Host:" in more else b"Host: localhost\r\n"
    length = b"" if b"Content-Length" in more or b"Transfer-" in more else b"Content-Length: %d\r\n"
    head = method + b" " + path + b" HTTP/1.1\r\n" + host
    return head + (length % len(body) if length else b"") + more + b"\r\n" + body


KINDS: Final[dict[str, Make]] = {
    "body": bad_body,
    "header": bad_header,
    "connection": bad_connection,
}


# --- sending --------------------------------------------------------------------------------


async def sent(port: int, kind: str, content: bytes, chance: random.Random) -> int:
    """Send bytes on a connection of their own; the status of the answer, 0 if there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(content)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        cut = kind == "connection" and chance.random() < 0.7
        if cut and chance.random() < 0.5:  # a reset instead of an end
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if cut:
            return 0
        # (Of all but whole bodies the service may wait for more: it need not answer.)
        seconds = _SECONDS if kind == "body" else _MORE_SECONDS
        try:
            line = await asyncio.wait_for(reader.readline(), seconds)
        except ConnectionError:
            return 0
        except TimeoutError:
            if kind == "body":
                raise
            return 0
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", line)
        return int(found[1]) if found else 0
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), _SECONDS)


async def flood(port: int, requests: int, seed: int, process: psutil.Process) -> dict[str, Any]:
    """Send nonsense; statuses, the worst memory, and what was answered with 5xx."""
    left = iter(range(requests))
    statuses: Counter[int] = Counter()
    blamed: list[str] = []
    unanswered = 0
    most = 0

    async def one() -> None:
        nonlocal unanswered
        for i in left:
            chance = random.Random(f"{seed} {i}")
            kind = chance.choice([*KINDS])
            content = KINDS[kind](chance)
            try:
                status = await sent(port, kind, content, chance)
            except TimeoutError:
                unanswered += 1
                blamed.append(f"no answer: {content[:300]!r}")
                continue
            except ConnectionError:  # reset by the service, which had enough of it
                status = 0
            statuses[status] += 1
            if status >= 500:
                blamed.append(f"{status}: {content[:300]!r}")

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, memory(process))
            await asyncio.sleep(0.2)

    looking = asyncio.create_task(look())
    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(_AT_ONCE)))
    looking.cancel()
    return {
        "requests": requests,
        "seconds": time.perf_counter() - began,
        "statuses": {str(status): many for status, many in sorted(statuses.items())},
        "answers_of_5xx": sum(many for status, many in statuses.items() if status >= 500),
        "unanswered": unanswered,
        "most_memory_mb": most / 1e6,
        "blamed": blamed[:20],
    }


def memory(process: psutil.Process) -> int:
    """Bytes that the service and its helpers hold. (Those that run jobs come when a job does.)"""
    total = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if _RUNNERS not in each.cmdline():
                total += each.memory_info().rss
    return total


def seconds_used(process: psutil.Process) -> float:
    """Processor time of the service and its helpers so far."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


# --- the price of a refusal -----------------------------------------------------------------


def large_bodies() -> dict[str, bytes]:
    """Bodies of about a megabyte, each refused for another reason."""
    n = _MEGABYTE
    return {
        "not JSON": b"x" * n,
        "cut off": b'{"data":[' + b"1," * (n // 2),
        "nested": b'{"data":' + b"[" * n,
        "unknown fields": b"{" + b",".join(b'"n%d":1' % i for i in range(n // 11)) + b"}",
        "a name twice": b'{"data":[' + b"1," * (n // 2) + b'1],"data":[1]}',
        "wrong values": b'{"data":[' + b'"a",' * (n // 4) + b'"a"]}',
        "one wrong value": b'{"data":[' + b"1," * (n // 2) + b'"a"]}',
        "unknown workload": b'{"workload":"w","params":"' + b"p" * n + b'"}',
        "a long number": b'{"data":[' + b"9" * n + b"]}",
        "escapes": b'{"data":["' + b"\\u00e9" * (n // 6) + b'"]}',
        "not UTF-8": b'{"data":["' + b"\xff" * n + b'"]}',
        "objects": b'{"data":[' + b'{"a":1},' * (n // 8) + b"1]}",
    }


async def prices(port: int, process: psutil.Process, rounds: int = 5) -> dict[str, float]:
    """Milliseconds of processor time for each megabyte of a refused body, by its kind."""
    found = {}
    for name, body in large_bodies().items():
        content = _request(b"POST", b"/submit", body, b"Content-Type: application/json\r\n")
        await _refused(port, content, name)  # starts the process that reads
        before = seconds_used(process)
        for _ in range(rounds):
            await _refused(port, content, name)
        found[name] = 1e3 * (seconds_used(process) - before) / rounds / (len(body) / _MEGABYTE)
    return found


async def _refused(port: int, content: bytes, name: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(content)
    line = await asyncio.wait_for(reader.readline(), _SECONDS)
    writer.close()
    assert re.match(rb"HTTP/1\.1 4\d\d ", line), (name, line)


async def measured(port: int, pid: int, requests: int, seed: int) -> dict[str, Any]:
    """All of it, one after the other."""
    process = psutil.Process(pid)
    await flood(port, 500, seed + 1, process)  # warm
    before = memory(process)
    result = await flood(port, requests, seed, process)
    await asyncio.sleep(1.0)
    result["grown_mb"] = (memory(process) - before) / 1e6
    result["open_files"] = process.num_fds()
    good = _request(b"POST", b"/submit", b'{"data":[1]}', b"Content-Type: application/json\r\n")
    result["accepts_a_good_job"] = await sent(port, "body", good, random.Random(0)) == 202
    print(json.dumps(result), file=sys.stderr)  # (what comes may take long on a busy machine)
    cpu = await prices(port, process)
    result["cpu_ms_a_mb"] = cpu
    result["worst_cpu_ms_a_mb"] = max(cpu.values())
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="write here what the service logs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _SERVER, "serve", "--port", "0"]
        command += ["--journal", f"{folder}/journal.sqlite3", "--max-queued", "1000000"]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        log: list[bytes] = []
        try:
            assert service.stdout is not None
            found = re.search(rb"serving on http://[^:]+:(\d+)", service.stdout.readline())
            if found is None:
                raise SystemExit("the service did not start")
            reading = asyncio.run(_with_log(service, log, int(found[1]), options))
        finally:
            service.send_signal(signal.SIGTERM)
            service.communicate()
    if options.json:
        print(json.dumps(reading, indent=1))
    else:
        for name, value in reading.items():
            goal = f"   (goal: at most {GOALS[name]:g})" if name in GOALS else ""
            shown = f"{value:,.1f}" if isinstance(value, float) else value
            print(f"{name:22} {shown}{goal}")
    late = any(reading[name] > goal for name, goal in GOALS.items())
    return int(late or reading["unanswered"] > 0 or not reading["accepts_a_good_job"])


async def _with_log(
    service: subprocess.Popen[bytes], log: list[bytes], port: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Measure, and read what the service logs meanwhile: it must be little."""
    assert service.stderr is not None
    lines = iter(service.stderr.readline, b"")
    reading = threading.Thread(target=lambda: log.extend(lines), daemon=True)
    reading.start()
    result = await measured(port, service.pid, options.requests, options.seed)
    result["lines_logged"] = len(log)
    result["log"] = [line.decode("utf-8", "replace")[:200].rstrip() for line in log[:10]]
    if options.log:
        options.log.write_bytes(b"".join(log))
    service.send_signal(signal.SIGTERM)
    await asyncio.to_thread(reading.join, _SECONDS)
    return result


if __name__ == "__main__":
    sys.exit(main())
