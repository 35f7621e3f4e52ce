"""Finds the Ray cluster of this machine by the note that `ray start` leaves; joins nothing."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Final

import psutil
from ray._common.utils import get_ray_address_file

from agentic_ray.errors import SessionError

_logger = logging.getLogger("agentic_ray")
_CONNECT_SECONDS: Final = 5.0
CHOICE: Final = (
    "To join it, give its address (ar.init(address), --address or RAY_ADDRESS); for an embedded "
    "Ray of your own instead, give the address 'local'"
)


def cluster_of_this_machine() -> str | None:
    """Return the address of the cluster that this machine is part of; None if it is part of none.

    `ray start` writes the address into a file, on the head and on every other node, and `ray stop`
    removes it. An embedded Ray (ours, or of a `ray.init()`) does not, so that no other program
    takes it for the machine's cluster. (Ray's own "auto" takes any Ray that it sees running.)

    Raises
    ------
    SessionError
        The machine is part of a cluster whose head does not answer.
    """
    note = Path(get_ray_address_file(None))
    try:
        address = note.read_text().strip()
        owner = note.stat().st_uid
    except OSError:
        return None
    if not address:
        return None
    if owner not in (os.getuid(), 0):
        # In a folder that all may write to, anybody can lay out such a note, and a process that
        # joins a cluster runs the cluster's code.
        _logger.warning(
            "%s, written by another user (%d), names the Ray cluster %s; it is not joined. %s",
            note,
            owner,
            address,
            CHOICE,
        )
        return None
    try:
        check_reachable(address)
    except OSError as error:
        if not has_node_of(address):
            _logger.info("%s names %s, where no Ray runs any more (%s)", note, address, error)
            return None
        raise SessionError(
            f"this machine is a node of the Ray cluster {address}, whose head does not answer "
            f"({error}). `ray stop` ends the node; for an embedded Ray meanwhile, give the address "
            "'local'"
        ) from error
    return address


def check_reachable(address: str) -> None:
    """Raise OSError if nothing listens there: Ray itself would try for a minute, then exit."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            pass


def is_on_this_machine(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host in ("localhost", ""):
        return True
    own = (entry.address for entries in psutil.net_if_addrs().values() for entry in entries)
    return host in own


def has_node_of(address: str) -> bool:
    """Whether a raylet of that cluster runs on this machine."""
    mark = f"--gcs-address={address}"
    for process in psutil.process_iter():
        try:
            if mark in process.cmdline():
                return True
        except psutil.Error:
            continue  # it has ended, or is not ours to look at
    return False
