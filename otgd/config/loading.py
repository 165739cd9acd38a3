"""From a file to ``Config``: read, understand, check, translate."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from otgd.config.checks import check_complete, check_entries, check_gadgets
from otgd.config.drafts import merge_entries
from otgd.config.findings import Findings
from otgd.config.fleet import check_fleet, unfold_fleet
from otgd.config.lines import locate_keys
from otgd.config.schema import validate
from otgd.config.swarm import check_members, check_swarm, swarm_spec, via_hub
from otgd.errors import ConfigError, Problem
from otgd.model import Config, DesiredState, Settings, UplinkPolicy

if TYPE_CHECKING:
    from pathlib import Path

    from otgd.config.lines import Lines

_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_UNQUOTED = re.compile(r"""(?P<key>[^=]+?)\s*=\s*(?P<value>[^\s"'\[{#][^"#=]{0,80}?)\s*(?:#.*)?""")
_DOUBLED = re.compile(
    r"Cannot (declare .* twice|overwrite a value)|Duplicate inline table key '(?P<key>.*)'"
)
_READING = (
    (FileNotFoundError, "write the file, or name another one with --config"),
    (IsADirectoryError, "name a file"),
    (PermissionError, "run this as root, or make the file readable"),
    (OSError, "make the file readable, or name another one with --config"),
)


def load_config(path: Path) -> Config:
    """Read the config file at *path*.

    Raises:
        ConfigError: it cannot be read or is refused; carries every problem.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        remedy = next(text for kind, text in _READING if isinstance(error, kind))
        cause = f"cannot be read: {error.strerror}"
        raise _refused(str(path), line=None, cause=cause, remedy=remedy) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(
            str(path), line=line, cause="is not UTF-8 text", remedy="save the file as UTF-8"
        ) from error
    return parse_config(text, file=str(path))


def parse_config(text: str, *, file: str) -> Config:
    """Understand *text*, the content of a config file; *file* is its name in messages.

    Raises:
        ConfigError: the config is refused; carries every problem.
    """
    raw, lines = _parse_toml(text, file=file)
    findings = Findings(file=file, lines=lines)
    document, faults = validate(raw)
    for fault in faults:
        findings.add(fault.path, cause=fault.cause, remedy=fault.remedy)
    faulty = frozenset(fault.path for fault in faults)
    uplinks = document.uplink.interface

    fleet = document.fleet
    members = tuple(unfold_fleet(fleet)) if fleet else ()
    if fleet:
        check_fleet(fleet, faulty=faulty, uplinks=uplinks, findings=findings)
    drafts = merge_entries(members, document.gadget, faulty=faulty)
    is_all_known = bool(members) or not (fleet or ("fleet",) in faulty)
    if is_all_known:
        check_complete(drafts, findings=findings)
    check_entries(document.gadget, findings=findings)
    check_gadgets(drafts, uplinks=uplinks, findings=findings)
    swarm = document.swarm
    if swarm:
        check_swarm(swarm, drafts, faulty=faulty, findings=findings)
    if swarm and is_all_known:
        check_members(swarm, [draft.name for draft in drafts], findings=findings)
    gadgets = tuple(spec for draft in drafts if (spec := draft.spec()))
    findings.raise_any()
    cluster = swarm_spec(document.swarm, gadgets)

    return Config(
        desired=DesiredState(
            gadgets=via_hub(gadgets, cluster) if cluster else gadgets,
            uplink_policy=UplinkPolicy(interfaces=uplinks),
            drivers=document.hotplug.drivers,
            unknown=document.hotplug.unknown,
            hub=cluster.hub_address if cluster else None,
        ),
        settings=Settings(
            source=document.hotplug.source,
            backend=document.firewall.backend,
            on_stop=document.service.on_stop,
            resync_s=document.service.resync_s,
            log_level=document.service.log_level,
        ),
        swarm=cluster,
    )


def _parse_toml(text: str, *, file: str) -> tuple[dict[str, Any], Lines]:
    try:
        return tomllib.loads(text), locate_keys(text)
    except RecursionError:
        raise _refused(
            file, line=None, cause="is nested too deep", remedy="remove brackets"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(text, str(error), file=file) from error
    except ValueError as error:  # int() takes 4300 digits, bpo-95778
        raise _refused(
            file,
            line=None,
            cause="has a number of thousands of digits",
            remedy="write a lesser one",
        ) from error


def _syntax_error(text: str, message: str, *, file: str) -> ConfigError:
    lines = text.split("\n")
    position = _POSITION.search(message)
    number = int(position["line"]) if position and position["line"] else len(lines)
    message = _POSITION.sub("", message)
    statement = lines[number - 1].strip()
    if doubled := _DOUBLED.fullmatch(message):
        name = doubled["key"] or statement.partition("=")[0].strip()
        cause, remedy = f"{name} is there twice", "remove one of them, or give it another name"
    elif quoted := _with_quotes(statement):
        cause, remedy = "text stands without quotes", f"write {quoted}"
    else:
        cause, remedy = (
            f"is not TOML: {message}",
            "write key = value (text in double quotes) or [table]",
        )
    return _refused(file, line=number, cause=cause, remedy=remedy)


def _with_quotes(statement: str) -> str | None:
    """Return *statement* with its value in quotes, if that is what it lacks."""
    match = _UNQUOTED.fullmatch(statement)
    if match is None:
        return None
    quoted = f'{match["key"]} = "{match["value"]}"'
    return quoted if _is_toml(quoted) and not _is_toml(statement) else None


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except ValueError:
        return False
    return True


def _refused(file: str, *, line: int | None, cause: str, remedy: str) -> ConfigError:
    return ConfigError((Problem(file=file, line=line, key="", cause=cause, remedy=remedy),))
