"""Rules that decide whether a GPU or a node is fit to be used. Pure: figures in, verdict out.

``nvml`` and ``collector`` read the figures; the Dispatcher acts on a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.telemetry.state import GpuState

FATAL_XIDS: Final[dict[int, str]] = {
    46: "GPU stopped processing",
    48: "uncorrectable double-bit ECC error",
    61: "internal microcontroller breakpoint",
    62: "internal microcontroller halt",
    64: "failed to retire or remap a bad memory row",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    95: "uncontained memory error",
    119: "GSP firmware stopped answering",
    120: "GSP firmware error",
    140: "unrecovered ECC error",
}
"""XID codes after which a GPU must be reset, or its node rebooted, before it can be trusted.

Chosen from NVIDIA, "XID Errors" (docs.nvidia.com/deploy/xid-errors, with the Xid catalog) and "Xid
Checks" of NVIDIA Health Validation: codes whose remedy is a reset, a reboot or a repair, on
data-centre and other cards. Three kinds of code are left out on purpose: codes that a faulty
program causes (13, 31, 32, 43, 45, 68, 69, 109: its own context dies and the GPU goes on), codes
that only report (63, 92, 154), and contained memory errors (94), which kill one program and leave
the rest intact.
"""

SILENT_REPORTS: Final = 5.0
SILENT_FLOOR_SECONDS: Final = 2.0


def assess(gpu: GpuState, previous: GpuState | None = None) -> GpuState:
    """Decide ``healthy``, ``reason`` and the ECC history of a GPU; return it with these fields set.

    A verdict lasts: ``xid`` keeps a fatal code, and ECC errors count from the first reading
    until the driver's own counter starts again, also over readings that lack it.

    Parameters
    ----------
    gpu : GpuState
        A fresh reading. A GPU that already is unhealthy (lost) keeps its reason.
    previous : GpuState, optional
        The assessed reading before it, of the same UUID.
    """
    baseline, new = (None, 0) if previous is None else (previous.ecc_baseline, previous.ecc_new)
    count = gpu.ecc_uncorrected
    if count is not None:
        # the volatile counter begins again at 0 when the driver is loaded or the GPU reset
        baseline = count if baseline is None else min(baseline, count)
        new = count - baseline
    healthy, reason = gpu.healthy, gpu.reason
    if healthy and gpu.xid in FATAL_XIDS:
        healthy, reason = False, f"XID {gpu.xid}: {FATAL_XIDS[gpu.xid]}"
    elif healthy and new > 0:
        healthy, reason = False, f"{new} new uncorrectable ECC error{'s' * (new > 1)}"
    return replace(gpu, healthy=healthy, reason=reason, ecc_baseline=baseline, ecc_new=new)


def telling_xid(xids: Iterable[int]) -> int | None:
    """Choose the XID to report of those that a device has had, oldest first.

    This is the first fatal one, since later ones are often its consequence; otherwise the newest;
    None without any.
    """
    newest = None
    for xid in xids:
        if xid in FATAL_XIDS:
            return xid
        newest = xid
    return newest


def is_silent(age_seconds: float | None, interval_seconds: float) -> bool:
    """Whether a node has been quiet for so long that it should get no new work.

    Parameters
    ----------
    age_seconds : float or None
        Age of its newest report; None when it never sent one, which is not silence.
    interval_seconds : float
        Interval at which its collector reports.

    Notes
    -----
    Five missed reports, and at least two seconds so that a short interval on a busy machine
    raises no false alarm. At the default interval that is half the time in which Ray notices.
    """
    if not interval_seconds > 0:
        raise InvalidArgumentError(f"interval_seconds must be > 0, not {interval_seconds!r}")
    limit = max(SILENT_REPORTS * interval_seconds, SILENT_FLOOR_SECONDS)
    return age_seconds is not None and age_seconds > limit
