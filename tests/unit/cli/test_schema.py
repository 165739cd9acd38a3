"""The published JSON Schemas and what is really written agree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from otgd.cli.schema import SCHEMAS
from tests.lab.schema import check
from tests.unit.cli.conftest import absent, gadget, state

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Tool

LINK = {"ifindex": 9, "ifname": "usb3", "mac": "00:22:82:ff:ff:99", "driver": "x"}
LINK |= {"port": None, "serial": None}
WRONG: dict[str, dict[str, Any]] = {
    "state": {"state": "fine"},
    "MAC": {"mac": "00-22-82"},
    "addresses": {"addresses": "10.0.11.1/24"},
    "ifindex": {"ifindex": "7"},
}


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_schema_is_a_schema(otgctl: Tool, name: str) -> None:
    printed = otgctl("schema", name).document
    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed == json.loads(json.dumps(SCHEMAS[name]))


def test_status_keeps_to_the_schema(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent(), unknown=[LINK | {"reason": "no"}], uplink=None))
    check(otgctl("status", "--json").document, "state")


@pytest.mark.parametrize("facts", WRONG.values(), ids=WRONG.keys())
def test_wrong_gadget_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(state(gadget(**facts)), "state")


def test_key_that_the_schema_does_not_tell_is_refused() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(state(gadget(colour="green")), "state")
