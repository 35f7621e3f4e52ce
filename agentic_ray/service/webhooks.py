"""`Webhooks`: tells URLs that the operator allowed of jobs that have ended, with a signature.

The body is what ``GET /status`` says, without the result. The header ``Agentic-Ray-Signature`` is
``t=SECONDS,v1=HMAC``: HMAC-SHA256 of ``SECONDS.BODY`` with the operator's secret, in hexadecimal.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

import httpx

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.master import JobRecord
from agentic_ray.master.jsonvalues import dumps, to_json

_logger = logging.getLogger("agentic_ray")

SIGNATURE: Final = "Agentic-Ray-Signature"

_TRIES: Final = 5
_FIRST_PAUSE: Final = 1.0
_SECONDS: Final = 10.0
_WAITING: Final = 10_000
_SENDERS: Final = 4


class Webhooks:
    """Sends to each of some URLs; tried again a few times, in threads of their own.

    Parameters
    ----------
    urls : collection of str
        ``http://`` or ``https://``. Nothing in a request can add one.
    secret : str
        Signs what is sent.
    """

    def __init__(
        self,
        urls: Collection[str],
        secret: str,
        *,
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
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_WAITING)
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
        for url in self._urls:
            try:
                self._waiting.put_nowait((url, body))
            except queue.Full:
                _logger.warning("webhook %s is not told of job %s: too many wait", url, record.id)

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

    def _send_all(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._send(*item)
            except Exception as error:  # one that cannot be sent must not end the others
                _logger.warning("webhook %s: %s", item[0], error)

    def _send(self, url: str, body: bytes) -> None:
        pause = _FIRST_PAUSE
        for attempt in range(_TRIES):
            try:
                answer = self._http.post(url, content=body, headers=self._headers(body))
                if answer.is_success:
                    return
                told = f"status {answer.status_code}"
                if 400 <= answer.status_code < 500 and answer.status_code not in (408, 429):
                    break
            except httpx.HTTPError as error:
                told = f"{type(error).__name__}: {error}"
            if attempt + 1 == _TRIES or self._closing.is_set():
                break
            self._pause(pause)
            pause *= 2
        _logger.warning("webhook %s did not take a message: %s", url, told)

    def _headers(self, body: bytes) -> Mapping[str, str]:
        return {
            "Content-Type": "application/json",
            SIGNATURE: sign(self._secret, int(time.time()), body),
        }


def sign(secret: bytes, seconds: int, body: bytes) -> str:
    """The header of a message."""
    made = hmac.new(secret, b"%d." % seconds + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={made}"
