"""What the parts of the local cloud share: one `Engine` per server process, handed to every `install`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow.local.clock import Clock, WallClock
from workflow.local.endings import Endings
from workflow.local.images import Images
from workflow.local.processes import Processes

if TYPE_CHECKING:
    from workflow.local.faults import Faults
    from workflow.local.identity import Identity
    from workflow.local.scheduler import Scheduler

ACCOUNT_ID = "123456789012"


def _no_faults() -> Faults:
    from workflow.local.faults import Faults

    return Faults()


@dataclass
class Engine:
    """The running local cloud, as the hooks see it."""

    home: Path
    """Folder for everything that is written: jobs, endpoints, functions."""
    account_id: str
    region: str
    endpoint_url: str
    """Where this server listens, for every service."""
    clock: Clock
    processes: Processes
    identity: Identity
    images: Images
    faults: Faults = field(default_factory=_no_faults)
    wall_clock: WallClock = field(default_factory=WallClock)
    endings: Endings = field(default_factory=Endings)
    scheduler: Scheduler | None = None
    """Set when it is installed."""
    application: Callable[[dict[str, Any], Any], Iterable[bytes]] | None = None
    """What answers requests, the door included; set when the server listens."""
