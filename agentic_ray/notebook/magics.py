"""The magics of ``%load_ext agentic_ray``."""

from __future__ import annotations

import ast
import time
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import display

from agentic_ray.notebook.overview import Overview, repeated
from agentic_ray.notebook.timing import CellTime
from agentic_ray.pictures.held import summed
from agentic_ray.runtime import explain
from agentic_ray.schedule.spans import spans_of
from agentic_ray.watching import Watch, watching

NAMES = {"line": ("ar_nodes", "ar_top", "ar_explain"), "cell": ("ar_time",)}


@magics_class
class ClusterMagics(Magics):  # type: ignore[misc]
    """``%%ar_time``, ``%ar_nodes``, ``%ar_top`` and ``%ar_explain``."""

    @magic_arguments()
    @argument("-t", "--timeline", metavar="FILE", help="Write the timeline: .html, .svg or .json.")
    @cell_magic
    def ar_time(self, line: str, cell: str) -> Any:
        """Run the cell and show what it put on the cluster.

        For each device: bundles of tasks, the seconds that they took and that were predicted, the
        bytes that they made and that came from other nodes. Of jobs (``ar.submit``) it is the work
        that was done when the cell ended: a job goes on beside the cell, and has a timeline of its
        own.
        """
        __tracebackhide__ = True  # IPython leaves this frame out
        wanted = parse_argstring(self.ar_time, line).timeline
        began = time.monotonic()
        with watching() as watch:
            try:
                return self._run(cell)
            finally:
                found = _cell_time(watch, time.monotonic() - began)
                if wanted is not None and found.spans:
                    found.timeline().save(wanted)
                display(found)

    def _run(self, cell: str) -> Any:
        """Run a cell as IPython does: the value of a last expression is its result."""
        __tracebackhide__ = True
        shell = self.shell
        source = shell.transform_cell(cell)
        name = shell.compile.cache(source, shell.execution_count)
        tree = shell.transform_ast(ast.parse(source, name))
        last = None
        quiet = source.rstrip().endswith(";")  # the user wants to see no result
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not quiet:
            last = ast.Expression(tree.body.pop().value)
        exec(compile(tree, name, "exec"), shell.user_ns)
        return None if last is None else eval(compile(last, name, "eval"), shell.user_ns)

    @line_magic
    def ar_nodes(self, line: str) -> Any:
        """Show the nodes of the cluster and their GPUs, as they are now."""
        _refuse(line, "%ar_nodes")
        return Overview.taken().state

    @magic_arguments()
    @argument("-s", "--seconds", type=float, default=0.0, help="Go on for so long.")
    @line_magic
    def ar_top(self, line: str) -> None:
        """Show the nodes, the graphs under way and the jobs of this process."""
        seconds = parse_argstring(self.ar_top, line).seconds
        if not 0 <= seconds < float("inf"):
            raise UsageError(f"--seconds is a number of seconds, not {seconds}")
        handle = display(Overview.taken(), display_id=True)
        repeated(seconds, (lambda found: None) if handle is None else handle.update)

    @line_magic
    def ar_explain(self, line: str) -> None:
        """Print the plan of an array, or where the bundles of a job ran and why."""
        if not line.strip():
            raise UsageError("%ar_explain needs an expression, such as %ar_explain x.sum()")
        print(explain(eval(line, self.shell.user_ns)))


def _refuse(line: str, magic: str) -> None:
    if line.strip():
        raise UsageError(f"{magic} takes no arguments")


def _cell_time(watch: Watch, wall_seconds: float) -> CellTime:
    jobs = {job.id: job for job in watch.jobs}  # an equal job may have been given twice
    records = [record for run in watch.runs for record in run.placements()]
    records += [record for job in jobs.values() for record in job.placements()]
    levels = summed(run.memory.levels for run in watch.runs)
    spans = (*spans_of(records), *watch.here)
    return CellTime(wall_seconds, len(watch.runs), spans, tuple(levels), len(jobs))
