"""What otgd tells about itself: each kind of event has a MESSAGE_ID, a priority and fields.

The catalog (systemd/otgd.catalog) explains each MESSAGE_ID to ``journalctl -x``; a test holds the
two together. Pure: says what is told, not where.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum


class Priority(IntEnum):
    """Syslog priorities, sd-daemon(3)."""

    ERR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


class Kind(Enum):
    """Every kind of event: its MESSAGE_ID (never reused) and its priority."""

    SERVICE_READY = ("a0cfc7a41d964011853078fac0eec5fb", Priority.INFO)
    SERVICE_STOPPING = ("1e8870de4d55458d8ac0b479cc293220", Priority.INFO)
    CONFIG_RELOADED = ("751e0ad5148a4ce89c554b6279043553", Priority.INFO)
    CONFIG_REJECTED = ("b420fa98040c429682bc44bfd1c70390", Priority.ERR)
    GADGET_CONFIGURED = ("7d8c7991c79e495ba291aa53dec71520", Priority.INFO)
    GADGET_BLOCKED = ("01f84aadf8bc47eeb706d94bfa459a13", Priority.WARNING)
    GADGET_FAILED = ("1e4fe58274344b548272d7575054a14c", Priority.ERR)
    GADGET_UNPLUGGED = ("05f7a58ae8dc412e89af3ac3a70c3eab", Priority.INFO)
    GADGET_RECOGNIZED = ("a4fd71cf6b994ad4a8a4824d04b86828", Priority.NOTICE)
    GUEST_LOST = ("47df9cbfeedd4f6d88621e09defad35e", Priority.WARNING)
    GUEST_FOUND = ("18a38e9474af46e89f4891886bca7039", Priority.INFO)
    LINK_STUCK = ("151af3bfb9eb4f8188a05fcdbb7ca920", Priority.WARNING)
    UNKNOWN_LINK = ("bc1312af4643474fba3dabd32146ae9c", Priority.WARNING)
    UPLINK_CHANGED = ("55d5db96db5347879b033c5b1665c29b", Priority.INFO)
    UPLINK_LOST = ("231c55b8b28d42e7b251cadae72346f2", Priority.WARNING)
    HUB_BLOCKED = ("d774659a0e9e49e889dd921ad49e6fe8", Priority.WARNING)
    STEP_APPLIED = ("2aac3d56cb37499f8a8db53ec3dc93b4", Priority.DEBUG)
    STEP_FAILED = ("e8fc26aad2af491ca0a95c16221a6b8f", Priority.WARNING)
    REPAIRED = ("74139388ed9a4a0da9b1db36f317045a", Priority.NOTICE)
    CONTESTED = ("c4abe7a8d0b147a397eb75d683459827", Priority.WARNING)
    EVENTS_LOST = ("6a8d81d1bc154c78bfa59115fb37af1d", Priority.WARNING)
    PASS_CRASHED = ("fd0b5b5663994f5e93b1f36da2388447", Priority.ERR)
    SWARM_NODE_READY = ("3f857247499b42b391839dad2b204f42", Priority.INFO)
    SWARM_NODE_LOST = ("b211c1dcb367416aa34e63a7f37ab375", Priority.WARNING)
    SWARM_JOIN_FAILED = ("c3c62abe988d4fba83767638c9c94c37", Priority.WARNING)
    SWARM_LOST = ("e73bd111adb84f78b8ab91bb446c3da5", Priority.WARNING)
    STATE_NOT_WRITTEN = ("7c7559ae3b5141f4ac22648c73b1bf07", Priority.WARNING)

    def __init__(self, message_id: str, priority: Priority) -> None:
        self.message_id = message_id
        self.priority = priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        message: the sentence for people.
        fields: journal fields (``INTERFACE``, ``OTGD_GADGET``, ``OTGD_MAC``, ``OTGD_PORT``,
            ``OTGD_STATE``, ``OTGD_ACTION``, ``OTGD_REASON``; ``OTGD_TRACEBACK`` with a defect);
            empty values are left out.
    """

    kind: Kind
    message: str
    fields: dict[str, str] = field(default_factory=dict)
