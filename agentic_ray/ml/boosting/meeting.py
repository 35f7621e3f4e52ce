"""A meeting: processes that have to run at the same time tell each other where they are.

The process that calls waits for all of them at a port of its own. When the last one has come, each
is told the addresses of all. If one does not come in time the others are sent home, and hold no
worker process any longer.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
from dataclasses import dataclass
from typing import Any

from agentic_ray.errors import SessionError


class NotAllCameError(SessionError):
    """Fewer processes ran at once than a meeting was called for."""


@dataclass(frozen=True)
class Place:
    """Where a meeting is.

    Parameters
    ----------
    host : str
    port : int
    token : str
        Only who knows it is let in.
    """

    host: str
    port: int
    token: str


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens at."""
    held = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for one in held:
            one.bind(("", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


class Meeting:
    """The side of the caller; a context.

    Parameters
    ----------
    host : str
        Of this process, as others reach it.
    count : int
        Processes that have to come.
    wait : float
        Seconds that the first one waits for the last one.
    """

    def __init__(self, host: str, count: int, wait: float) -> None:
        self._server = socket.create_server((host, 0))
        self._count, self._wait = count, wait
        self.place = Place(host, int(self._server.getsockname()[1]), secrets.token_hex(16))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Place:
        self._thread.start()
        return self.place

    def __exit__(self, *error: Any) -> None:
        self._server.close()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        guests: dict[int, tuple[socket.socket, list[str]]] = {}
        try:
            while len(guests) < self._count:
                self._server.settimeout(self._wait if guests else None)
                guest, _ = self._server.accept()
                guest.settimeout(10.0)
                try:
                    said = json.loads(guest.makefile("r").readline())
                except (OSError, ValueError):
                    guest.close()
                    continue
                if not secrets.compare_digest(str(said.get("token")), self.place.token):
                    guest.close()
                    continue
                guests[int(said["number"])] = (guest, list(said["addresses"]))
        except OSError:  # the meeting was called off, or one did not come in time
            _tell(guests, None)
            return
        _tell(guests, [guests[number][1] for number in sorted(guests)])


def _tell(guests: dict[int, tuple[socket.socket, list[str]]], addresses: Any) -> None:
    for guest, _ in guests.values():
        try:
            guest.sendall((json.dumps(addresses) + "\n").encode())
        except OSError:
            continue  # it has gone, and the others find that out when they call it
        finally:
            guest.close()


def come(place: Place, number: int, addresses: list[str], wait: float) -> list[list[str]]:
    """Come to a meeting as process ``number``: the addresses of all, by number.

    Raises
    ------
    NotAllCameError
        The meeting was called off.
    """
    try:
        with socket.create_connection((place.host, place.port), timeout=wait) as link:
            said = {"token": place.token, "number": number, "addresses": addresses}
            link.sendall((json.dumps(said) + "\n").encode())
            answer = json.loads(link.makefile("r").readline() or "null")
    except OSError as error:
        raise NotAllCameError(f"the meeting at {place.host}:{place.port}: {error}") from error
    if answer is None:
        raise NotAllCameError("fewer processes ran at once than were called")
    found: list[list[str]] = answer
    return found
