"""The cluster in a notebook."""

from __future__ import annotations

from agentic_ray.telemetry.showing import state_html
from agentic_ray.telemetry.state import ClusterState, GpuState, NodeState

GIB = 2**30


def test_each_node_and_each_gpu_has_a_row_with_what_is_taken() -> None:
    good = GpuState(
        *("GPU-1", 0, "A <card>", 40 * GIB, 10 * GIB),
        utilization=0.25,
        temperature_celsius=61.0,
        power_watts=200.4,
        throttle_reasons=("sw_power_cap",),
    )
    bad = GpuState("GPU-2", 1, "B", healthy=False, reason="it fell off the bus")
    one = NodeState("a" * 20, "first", 8.0, 2.0, cpu_fraction=0.5, gpus=(good, bad))
    two = NodeState("b" * 20, "second", 4.0, 4.0, gpus_reason="no driver")
    gone = NodeState("c" * 20, "third", 4.0, 4.0, alive=False)
    text = state_html(ClusterState((one, two, gone), 0.0))
    assert text.count("<tr>") == 1 + 3 + 2 + 1
    for shown in (
        *("6 of 8 taken, 50% busy", "A &lt;card&gt;", "30.0 GiB of 40.0 GiB", "25% busy"),
        *("61 °C, 200 W, sw_power_cap", "healthy", "it fell off the bus", "no GPU: no driver"),
        "dead",
    ):
        assert shown in text
    assert "width='67.5'" in text, "three quarters of the bar"
    assert "a" * 12 in text
    assert "a" * 13 not in text
