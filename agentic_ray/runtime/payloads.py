"""A bundle made ready to be sent: pickled steps, and where each of its inputs comes from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ray import cloudpickle

from agentic_ray.errors import SerializationError
from agentic_ray.graph.task import Ref, is_named_tuple
from agentic_ray.runtime.execute import Payload, Step
from agentic_ray.runtime.outcomes import Inline
from agentic_ray.runtime.value_store import Resident, ValueStore
from agentic_ray.runtime.values import CodeletTable, Stored
from agentic_ray.schedule.events import Start


def make_payload(
    command: Start,
    executor: Any,
    values: ValueStore,
    codelet_table: CodeletTable,
    wanted: Collection[str],
) -> tuple[Payload, dict[str, Any], dict[str, Stored]]:
    """Return the bundle of ``command`` as it is sent to ``executor``, the call's extra arguments,
    and those of them that are the caller's own.

    Parameters
    ----------
    wanted : collection of str
        Outputs that are results of the graph.

    Raises
    ------
    SerializationError
        A function or its data cannot be pickled.
    SessionError
        A value among the arguments belongs to a session that has ended.
    """
    graph_id, bundle = command.graph_id, command.bundle
    inline: dict[str, Inline] = {}
    inputs: dict[str, Any] = {}
    own: dict[str, Stored] = {}
    resident: list[str] = []
    for key in bundle.inputs:
        value = values[graph_id, key]
        if isinstance(value, Inline):
            inline[key] = value
        elif isinstance(value, Resident) and value.executor is executor:
            resident.append(key)
        elif isinstance(value, Resident):
            if value.ref is None:
                copy = value.executor.host_copy.options(num_returns=2)
                value.copied, value.ref = copy.remote(graph_id, key)
            inputs[key] = value.ref
        else:
            inputs[key] = value
    codelets: dict[str, Any] = {}
    steps: list[Step] = []
    for task in bundle.tasks:
        token, source = codelet_table.source(task.codelet)
        codelets[token] = source
        args = _name_stored(task.args, own)
        kwargs = _name_stored(dict(task.kwargs), own)
        steps.append(Step(task.key, token, args, kwargs))
    try:
        pickled = cloudpickle.dumps(tuple(steps))
    except Exception as error:  # pickle raises anything that the objects' hooks raise
        raise SerializationError(f"the data of {bundle.key} cannot be sent: {error}") from error
    inputs.update((name, value.ref) for name, value in own.items())
    payload = Payload(pickled, codelets, tuple(inputs), inline, bundle.outputs)
    if command.placement.device != "cpu":
        gpus = bundle.resources.gpus
        payload = replace(
            payload,
            graph_id=graph_id,
            resident=tuple(resident),
            # Results of the graph are for the caller, who may ask when the GPU is gone.
            stay=tuple(key for key in bundle.outputs if key not in wanted),
            gpu_memory_bytes=command.gpu_memory_bytes,
            gpu_share=gpus if 0 < gpus < 1 else 1.0,
            parts=command.parts,
            function=bundle.tasks[0].codelet.name if command.process == "function" else "",
            cpus=bundle.resources.cpus,
        )
    return payload, inputs, own


def _name_stored(value: Any, own: dict[str, Stored]) -> Any:
    """Return ``value`` with every `Stored` replaced by a Ref to an extra argument of the call."""
    if isinstance(value, Stored):
        value.check()
        name = "@" + value.ref.hex()
        own[name] = value
        return Ref(name)
    if type(value) in (list, tuple):
        return type(value)(_name_stored(element, own) for element in value)
    if type(value) is dict:
        return {name: _name_stored(element, own) for name, element in value.items()}
    if is_named_tuple(value):
        return type(value)._make(_name_stored(element, own) for element in value)
    return value
