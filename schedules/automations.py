"""Automations that tell Prefect of flow runs whose process is gone: it would take them for running for ever.

A dead flow run does no harm to the runs themselves, whose journal another process goes on with. But a tick that
Prefect takes for running keeps the next ones from being started.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from lowtide.schedules.deployments import HEARTBEAT_SECONDS, TAG

SILENCE = timedelta(seconds=3 * HEARTBEAT_SECONDS)
"""After so long without a heartbeat, a flow run is dead."""

START = timedelta(minutes=15)
"""So long may it take to begin a flow run that a worker has taken on: images are pulled, machines are started."""

_OVER = frozenset({"Completed", "Failed", "Crashed", "Cancelled", "Cancelling"})
# Without a process of its own for a while.
_AWAY = frozenset({"Scheduled", "AwaitingRetry", "AwaitingConcurrencySlot", "Suspended", "Late"})


@dataclass(frozen=True, slots=True)
class Made:
    """An automation, and what was done about it."""

    name: str
    outcome: Literal["created", "updated", "unchanged"]


def heartbeat(silence: timedelta = SILENCE) -> AutomationCore:
    """Marks a flow run crashed that has sent no heartbeat for so long."""
    return _automation(
        "lowtide: mark dead flow runs",
        f"A flow run tagged {TAG} that has sent no heartbeat for {silence.total_seconds():.0f} seconds is crashed.",
        after={"heartbeat", "Running"},
        expect={"heartbeat", "Paused", *_OVER, *_AWAY},
        within=silence,
        message="No heartbeat: its process is gone. The next tick goes on with what it was at.",
    )


def start(within: timedelta = START) -> AutomationCore:
    """Marks a flow run crashed that a worker has taken on and that has not begun after so long."""
    return _automation(
        "lowtide: mark flow runs that never began",
        f"A flow run tagged {TAG} that is pending for {within.total_seconds() / 60:.0f} minutes is crashed.",
        after={"Pending"},
        expect={"Running", *_OVER, *_AWAY},
        within=within,
        message="It was taken on, and never began: its worker is gone.",
    )


def make(client: SyncPrefectClient, *, dry_run: bool = False) -> list[Made]:
    """See to it that the automations are there, each once and as they are described here.

    One that somebody has switched off stays so.
    """
    return [_made(client, wanted, dry_run=dry_run) for wanted in (heartbeat(), start())]


def _made(client: SyncPrefectClient, wanted: AutomationCore, *, dry_run: bool) -> Made:
    there = sorted(client.read_automations_by_name(wanted.name), key=lambda found: str(found.id))
    if not there:
        if not dry_run:
            client.create_automation(wanted)
        return Made(wanted.name, "created")
    wanted = wanted.model_copy(update={"enabled": there[0].enabled})
    same = _content(there[0]) == _content(wanted)
    if not dry_run:
        if not same:
            client.update_automation(there[0].id, wanted)
        for double in there[1:]:
            client.delete_automation(double.id)
    return Made(wanted.name, "unchanged" if same and len(there) == 1 else "updated")


def _content(automation: AutomationCore) -> object:
    """What an automation does, however its lists are ordered."""
    fields = set(AutomationCore.model_fields)
    return _ordered(automation.model_dump(mode="json", include=fields, exclude={"trigger": {"id"}}))


def _ordered(part: object) -> object:
    if isinstance(part, dict):
        return {name: _ordered(value) for name, value in part.items() if value not in (None, [], {}, "")}
    return sorted(map(_ordered, part), key=repr) if isinstance(part, list) else part


def _automation(
    name: str, description: str, *, after: set[str], expect: set[str], within: timedelta, message: str
) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=description,
        tags=[TAG],
        trigger=EventTrigger(
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification.model_validate(
                {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
            ),
            for_each={"prefect.resource.id"},
            after={f"prefect.flow-run.{word}" for word in after},
            expect={f"prefect.flow-run.{word}" for word in expect},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message, force=False)],
    )
