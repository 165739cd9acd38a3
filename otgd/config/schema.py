"""The shape of the file: its tables, their keys, the type of each (pydantic).

The only module that imports pydantic; its messages stop here. Everything is optional, because a
faulty value is taken out and the rest is read again: so one problem hides no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core.core_schema import no_info_plain_validator_function

from otgd.config import values
from otgd.config.values import RefusedError
from otgd.model import DEFAULT_DRIVERS, Backend, HotplugSource, OnStop, UnknownPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum

    from pydantic_core import CoreSchema, ErrorDetails

    from otgd.config.lines import Path


class _Parsed:
    """Marks a key whose value *parse* checks and translates; pydantic need not know its type.

    With a ``BeforeValidator`` it would make a validator of the type too: a tenth of the CPU time
    that reading a config takes.
    """

    def __init__(self, parse: Callable[[Any], object]) -> None:
        self._parse = parse

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> CoreSchema:
        """Tell pydantic what to do with a value."""
        return no_info_plain_validator_function(self._parse)


def _one_of(choices: type[StrEnum]) -> _Parsed:
    return _Parsed(partial(values.parse_choice, choices=list(choices)))


Mac = Annotated[str, _Parsed(values.parse_mac)]
Subnet = Annotated[IPv4Network, _Parsed(values.parse_subnet)]
Serial = Annotated[str, _Parsed(values.parse_serial)]
Port = Annotated[str, _Parsed(values.parse_port)]
Address = Annotated[IPv4Address, _Parsed(values.parse_address)]
Switch = Annotated[bool, _Parsed(values.parse_switch)]
LogLevel = Annotated[
    str,
    _Parsed(partial(values.parse_choice, choices=("info", "debug", "warning", "error"))),
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UplinkTable(_Table):
    """``[uplink]``."""

    interface: Annotated[tuple[str, ...], _Parsed(values.parse_uplink)] = ()


class FirewallTable(_Table):
    """``[firewall]``."""

    backend: Annotated[Backend, _one_of(Backend)] = Backend.AUTO


class HotplugTable(_Table):
    """``[hotplug]``."""

    drivers: Annotated[frozenset[str], _Parsed(values.parse_drivers)] = DEFAULT_DRIVERS
    source: Annotated[HotplugSource, _one_of(HotplugSource)] = HotplugSource.AUTO
    unknown: Annotated[UnknownPolicy, _one_of(UnknownPolicy)] = UnknownPolicy.REPORT


class ServiceTable(_Table):
    """``[service]``."""

    on_stop: Annotated[OnStop, _one_of(OnStop)] = OnStop.KEEP
    resync_s: Annotated[float, _Parsed(values.parse_resync)] = 60.0
    log_level: LogLevel = "info"
    metrics_file: Annotated[str, _Parsed(values.parse_metrics_file)] = ""


class FleetTable(_Table):
    """``[fleet]``: gadgets by rule; what is missing is seen when they are laid out."""

    count: Annotated[int, _Parsed(values.parse_count)] | None = None
    interface: Annotated[str, _Parsed(values.parse_ifname_template)] | None = None
    mac: Mac | None = None
    guest_mac: Mac | None = None
    subnet: Subnet | None = None
    hostname: Annotated[str, _Parsed(values.parse_hostname_template)] | None = None
    masquerade: Switch = True
    isolate: Switch = False


class MatchTable(_Table):
    """``[gadget.NAME] match``: what its link is known by."""

    mac: Mac | None = None
    serial: Serial | None = None
    port: Port | None = None


class GadgetTable(_Table):
    """``[gadget.NAME]``: one gadget, or what differs from the fleet's gadget of that name."""

    mac: Mac | None = None
    match: MatchTable | None = None
    subnet: Subnet | None = None
    host_address: Address | None = None
    guest_address: Address | None = None
    guest_mac: Mac | None = None
    hostname: Annotated[str, _Parsed(values.parse_hostname)] | None = None
    masquerade: Switch = True
    isolate: Switch = False


class SwarmTable(_Table):
    """``[swarm]``: the cluster over the cables; *members* are None for every gadget."""

    hub_address: Annotated[IPv4Address, _Parsed(values.parse_hub)] | None = None
    address_pool: Annotated[IPv4Network, _Parsed(values.parse_pool)] = IPv4Network("10.20.0.0/16")
    ssh_user: Annotated[str, _Parsed(values.parse_user)] = "pi"
    members: Annotated[tuple[str, ...] | None, _Parsed(values.parse_members)] = None
    auto_join: Switch = False


class Document(_Table):
    """The whole file."""

    uplink: UplinkTable = UplinkTable()
    firewall: FirewallTable = FirewallTable()
    hotplug: HotplugTable = HotplugTable()
    service: ServiceTable = ServiceTable()
    fleet: FleetTable | None = None
    gadget: dict[str, GadgetTable] = {}
    swarm: SwarmTable | None = None


TABLES: dict[str, type[_Table]] = {
    "uplink": UplinkTable,
    "firewall": FirewallTable,
    "hotplug": HotplugTable,
    "service": ServiceTable,
    "gadget": GadgetTable,
    "fleet": FleetTable,
    "swarm": SwarmTable,
}

_HEADERS = {"gadget": "gadget.NAME"}
_MATCH = 'match = { mac = "…", serial = "…", port = "…" }'


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One value that was taken out."""

    path: Path
    cause: str
    remedy: str


def validate(raw: dict[str, Any]) -> tuple[Document, tuple[Fault, ...]]:
    """Return what is right in *raw* and what is not; takes the latter out of *raw*."""
    try:
        return Document.model_validate(raw), ()
    except ValidationError as error:
        details = error.errors(include_url=False)
    faults = tuple(_fault(detail) for detail in details)
    for fault in faults:
        _take_out(raw, fault.path)
    return Document.model_validate(raw), faults


def _take_out(raw: dict[str, Any], path: Path) -> None:
    *tables, key = path
    for table in tables:
        raw = raw[str(table)]
    del raw[str(key)]


def _fault(detail: ErrorDetails) -> Fault:
    path = detail["loc"]
    refusal = detail.get("ctx", {}).get("error")
    if detail["type"] == "extra_forbidden":
        refusal = _unknown_key(path)
    elif not isinstance(refusal, RefusedError):
        refusal = _not_a_table(path, detail["input"])
    return Fault(path=path, cause=refusal.cause, remedy=refusal.remedy)


def _not_a_table(path: Path, value: object) -> RefusedError:
    if _is_in_match(path):
        form = _MATCH
    else:
        form = f"it as a table, [{_HEADERS.get(str(path[0]), path[0])}]"
    return RefusedError(f"is {values.kind_of(value)}, not a table", f"write {form}")


def _is_in_match(path: Path) -> bool:
    return path[0] == "gadget" and path[2:3] == ("match",)


def _unknown_key(path: Path) -> RefusedError:
    table, key = str(path[0]), str(path[-1])
    model = MatchTable if _is_in_match(path) else TABLES[table] if len(path) > 1 else None
    known = list(model.model_fields if model else TABLES)
    if model is GadgetTable and key in MatchTable.model_fields:
        return RefusedError("unknown key here, it belongs into match", f"write {_only(key)}")
    for other, others in TABLES.items():
        if key in others.model_fields:
            header = _HEADERS.get(other, other)
            return RefusedError(
                f"unknown key here, it belongs to [{header}]", f"move it to [{header}]"
            )
    if close := get_close_matches(key.lower(), known, n=1):
        return RefusedError("unknown key", f"write {close[0]}")
    return RefusedError("unknown key", f"remove it; known here are {', '.join(known)}")


def _only(key: str) -> str:
    return f'match = {{ {key} = "…" }}'
