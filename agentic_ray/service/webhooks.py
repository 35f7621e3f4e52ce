"""`Webhooks`: tells URLs that the operator allowed of jobs that have ended, with a signature.

The body is what ``GET /status`` says, without the result. The header ``Agentic-Ray-Signature`` is
``t=SECONDS,v1=HMAC``: HMAC-SHA256 of ``SECONDS.BODY`` with the operator's secret, in hexadecimal.

With a file for its state, ends that were not told (the service was away, or was killed) are told
when it comes back: at least once, in no order.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.master import JobRecord
from agentic_ray.master.jsonvalues import dumps, to_json
from agentic_ray.service.told import Told

_logger = logging.getLogger("agentic_ray")

SIGNATURE: Final = "Agentic-Ray-Signature"

_TRIES: Final = 5
_FIRST_PAUSE: Final = 1.0
_SECONDS: Final = 10.0
_WAITING: Final = 10_000
_SENDERS: Final = 4
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Message:
    url: str
    body: bytes
    job_id: str


class Webhooks:
    """Sends to each of some URLs; tried again a few times, in threads of their own.

    Parameters
    ----------
    urls : collection of str
        ``http://`` or ``https://``. Nothing in a request can add one.
    secret : str
        Signs what is sent.
    state : path, optional
        File of what was told, see `Told`.

    Raises
    ------
    InvalidArgumentError
        A URL is none, there is no secret, or the file is not one of ours.
    """

    def __init__(
        self,
        urls: Collection[str],
        secret: str,
        *,
        state: str | Path | None = None,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InvalidArgumentError(f"a webhook is an http:// or https:// URL, not {url!r}")
        if not secret:
            raise InvalidArgumentError("webhooks need a secret, by which receivers know us")
        self._urls = tuple(urls)
        self._secret = secret.encode()
        self._closing = threading.Event()
        self._pause = self._closing.wait if pause is None else pause
        self._waiting: queue.Queue[_Message | None] = queue.Queue(_WAITING)
        self._told = None if state is None else Told(Path(state))
        # trust_env=False: a proxy of the environment is not for what the operator has allowed.
        self._http = httpx.Client(timeout=_SECONDS, trust_env=False, transport=transport)
        self._threads = [
            threading.Thread(target=self._send_all, name="webhooks", daemon=True)
            for _ in range(_SENDERS if self._urls else 0)
        ]
        for thread in self._threads:
            thread.start()

    def ended(self, record: JobRecord) -> None:
        """A job has ended. Returns at once."""
        body = dumps(to_json(record.to_dict(with_result=False), name="job")).encode("ascii")
        ended_at = record.finished_at or time.time()
        if self._told is not None and not self._told.begin(record.id, ended_at, len(self._urls)):
            return
        for url in self._urls:
            try:
                self._waiting.put_nowait(_Message(url, body, record.id))
            except queue.Full:
                _logger.warning("webhook %s is not told of job %s: too many wait", url, record.id)
                self._done(record.id)

    def missed(self) -> float | None:
        """Some ends may never be heard of: return the time from which on they are to be looked for,
        in seconds since the epoch; None if nobody keeps what was told."""
        return None if self._told is None else self._told.missed()

    def resume(self, ended: Iterable[JobRecord]) -> None:
        """Tell of these ends, unless they were told; nothing was missed then.

        It may take a while: call it in a thread of its own.
        """
        for record in ended:
            while self._waiting.qsize() > _WAITING // 2 and not self._closing.wait(_LOOK_SECONDS):
                continue
            if self._closing.is_set():
                return  # (what was not told is told by the next service)
            self.ended(record)
        if self._told is not None:
            self._told.caught_up()

    def _done(self, job_id: str) -> None:
        if self._told is not None:
            self._told.done(job_id)

    def close(self, seconds: float = 2.0) -> None:
        """Send what waits, but no longer than this."""
        until = time.monotonic() + seconds
        while not self._waiting.empty() and time.monotonic() < until:
            time.sleep(0.01)
        self._closing.set()
        for _ in self._threads:
            try:
                self._waiting.put_nowait(None)
            except queue.Full:
                break  # they are daemons, and end with the process
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._http.close()
        if self._told is not None:
            self._told.write()

    def _send_all(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                told = self._send(item.url, item.body)
            except Exception as error:  # one that cannot be sent must not end the others
                _logger.warning("webhook %s: %s", item.url, error)
                told = True
            if told:
                self._done(item.job_id)

    def _send(self, url: str, body: bytes) -> bool:
        """Send it; False if that was broken off, so that the next service has to."""
        pause = _FIRST_PAUSE
        for attempt in range(_TRIES):
            try:
                answer = self._http.post(url, content=body, headers=self._headers(body))
                if answer.is_success:
                    return True
                told = f"status {answer.status_code}"
                if 400 <= answer.status_code < 500 and answer.status_code not in (408, 429):
                    break
            except httpx.HTTPError as error:
                told = f"{type(error).__name__}: {error}"
            if attempt + 1 == _TRIES:
                break
            if self._closing.is_set():
                return False
            self._pause(pause)
            pause *= 2
        _logger.warning("webhook %s did not take a message: %s", url, told)
        return True

    def _headers(self, body: bytes) -> Mapping[str, str]:
        return {
            "Content-Type": "application/json",
            SIGNATURE: sign(self._secret, int(time.time()), body),
        }


def sign(secret: bytes, seconds: int, body: bytes) -> str:
    """The header of a message."""
    made = hmac.new(secret, b"%d." % seconds + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={made}"
