"""The plan of a run and what it did: shown, kept in files, and compared with a plan that was kept.

pyinfra 3.10 tells nobody when planning has ended, so the last host to be planned does what comes then. Upstream, a
callback beside `operation_end` would do.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pyinfra import host, logger
from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.output import format_text
from pyinfra.api.state import BaseStateCallback

from cluster.changes import Plan, PlanError, Step, difference, lines, load, names, step
from cluster.plan_page import beside, page
from operations.change import noted

# What `--data` may have for any deploy: a file for the plan, one that the plan must agree with, one for what was done.
OPTIONS = ("plan_out", "plan_in", "result_out")
# Exit status of pyinfra; 1 is its own for a run that failed.
DRIFT = 2
COLOURS = {"+": "green", "-": "red"}

# Hosts for which pyinfra has executed the deploy's file that it loads now.
_planned: set[str] = set()


def begin(refuse: Callable[[list[str]], None], only: bool) -> None:
    """Before a deploy is planned: under `-y` pyinfra plans nothing, unless a plan is asked for."""
    asked = host.state.inventory.override_data
    refuse([problem for name in ("plan_out", "result_out") if (problem := _unwritable(name, asked.get(name)))])
    if only or asked.get("plan_out") or asked.get("plan_in"):
        host.state.check_for_changes = True
    if (only or asked.get("plan_in")) and not any(isinstance(each, Held) for each in host.state.callback_handlers):
        host.state.add_callback_handler(Held())


def _unwritable(name: str, path: Any) -> str:
    """Why a file cannot be written, said before anything is done for it; empty where it can or none is asked for."""
    if path is None:
        return ""
    directory = Path(str(path)).parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return f"{name}: {path} is a directory" if Path(str(path)).is_dir() else ""
    except OSError as error:
        return f"{name}: {path} cannot be written: {error.strerror}"


class Held(BaseStateCallback):
    """Has nothing executed that was not planned to its end, where a plan must be kept to, or is all that is wanted.

    When the host that is planned last fails, and a person lets pyinfra go on without it, nobody calls `end`.
    """

    held = True

    @classmethod
    def operation_start(cls, state: State, op_hash: str) -> None:
        if cls.held:
            raise PyinfraError("Nothing was changed on any host: not every host was planned to the end. Run again.")


def end(about: Callable[[], dict[str, Any]], refuse: Callable[[list[str]], None], only: bool) -> None:
    """After a deploy is planned for this host; when the last one is for all, show, keep and check the plan.

    `about` has the fields of a Plan that are not of pyinfra's; `refuse` stops the run with reasons, if there are any.
    With `only` pyinfra ends here, by DRIFT where anything would change.
    """
    _planned.add(host.name)
    if not {each.name for each in host.state.inventory.get_active_hosts()} <= _planned:
        return
    _planned.clear()
    if host.state.current_op_file_number < len(_deploys()) - 1:  # others follow on the command line
        return
    state, site, asked = host.state, about(), host.state.inventory.override_data
    if path := asked.get("result_out"):
        atexit.register(_keep_result, state, site, Path(str(path)))
    if not state.check_for_changes:
        return
    plan = _record(state, "plan", site)
    show(plan)
    lost = sorted(each.name for each in state.activated_hosts & state.failed_hosts)
    if path := asked.get("plan_in"):
        refuse(kept(Path(str(path)), plan) + [f"{name}: failed while it was planned" for name in lost])
        Held.held = False
    if lost:  # what they need is not in it
        logger.error(f"--> This is no whole plan, and is not kept: {names(lost)} failed while it was made")
    elif path := asked.get("plan_out"):
        write(plan, Path(str(path)))
        logger.info(f"--> The plan is in {path}, as a page in {beside(Path(str(path)))}")
    if only:
        changes = len(plan.rows())
        logger.info(f"--> {changes or 'No'} differences from what is described; nothing was changed")
        sys.exit(1 if lost else DRIFT if changes else 0)


def _keep_result(state: State, about: dict[str, Any], path: Path) -> None:
    if state.is_executing:
        write(_record(state, "result", about), path)


def _deploys() -> tuple[str, ...]:
    """The deploys of the command line, such as `cluster`, in their order."""
    return tuple(Path(word).stem for word in sys.argv if Path(word).parent.name == "deploys")


def show(plan: Plan) -> None:
    """Print a plan for people."""
    if not plan.steps:
        return
    logger.info("--> Plan:")
    for line in lines(plan, host.state.config.DIFF):
        logger.info("    %s", format_text(line, COLOURS.get(line.strip()[:1])) if line.startswith("    ") else line)
    if plan.unknown:
        logger.info(f"    {plan.unknown} of these changes cannot be known whole before the run; each says what is not.")


def kept(path: Path, plan: Plan) -> list[str]:
    """How a plan differs from the one in a file, in words."""
    try:
        old = load(path)
    except PlanError as error:
        return [str(error)]
    found = [
        f"{name}: {getattr(old, name)} in {path}, now {getattr(plan, name)}"
        for name in ("deploys", "cluster_name", "kubernetes_version", "bundle")
        if getattr(old, name) != getattr(plan, name)
    ]
    found += difference(old, plan)
    return [*found, f"{path} does not hold any more. Look at a new plan, and keep that."] if found else []


def write(plan: Plan, path: Path) -> None:
    """Keep a plan as JSON in this file, and as a page beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _put(path, plan.model_dump_json(by_alias=True, indent=1) + "\n")
    _put(beside(path), page(plan))


def _put(path: Path, text: str) -> None:
    """Put a text beside its place, then there: whole or not at all, and for its owner alone."""
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(new).replace(path)


def _record(state: State, kind: Literal["plan", "result"], about: dict[str, Any]) -> Plan:
    order = state.get_op_order()
    return Plan(
        schema=1,
        kind=kind,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        deploys=_deploys(),
        operations=len(order),
        steps=tuple(_steps(state, order, executed=kind == "result")),
        **about,
    )


def _steps(state: State, order: Iterable[str], executed: bool) -> Iterable[Step]:
    hosts = [each for each in state.inventory if each in state.activated_hosts]  # the inventory's order
    for each in order:
        changes = {
            on.name: noted(on, each, executed)
            for on in hosts
            if each in state.ops[on] and _changes(state.ops[on][each].operation_meta, executed)
        }
        if changes:
            yield step(" / ".join(sorted(state.get_op_meta(each).names)), changes)


def _changes(meta: Any, executed: bool) -> bool:
    return meta.is_complete() and meta.did_change() if executed else bool(meta._maybe_is_change)
