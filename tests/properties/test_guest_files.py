"""Any cmdline.txt, config.txt, dhcpcd.conf survives; twice is once; undo restores."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from otgd.guest import cmdline, config_txt, network
from otgd.guest.identity import hosts
from otgd.guest.tree import File, boot, encode, root
from otgd.guest.undo import take_out
from tests.unit.guest.cards import WORKER1, golden_card, prepare, undo

MAC, GUEST_MAC = "00:22:82:ff:ff:01", "00:22:82:ff:ff:11"
OURS = {"modules-load=dwc2,g_ether", f"g_ether.host_addr={MAC}", f"g_ether.dev_addr={GUEST_MAC}"}

words = st.sampled_from(
    (
        *("rootwait", "quiet", "--", "single", "root=/dev/mmcblk0p2", 'x="a b"', '"'),
        *("modules-load=dwc2,g_ether", "modules_load=i2c-dev,g_serial", "modules-load="),
        *("g_ether.host_addr=02:00:00:00:00:01", "g-ether.dev-addr=x", "systemd.run=/boot/x"),
        *(sorted(OURS)),
    )
) | st.text(max_size=12)
command_lines = st.lists(words).map(" ".join) | st.lists(words).map("\n".join)

config_lines = st.sampled_from(
    (
        *("[all]", "[none]", "[pi0]", "[pi0w]", "[pi02]", "[pi4]", "[cm5]", "[gpio4=1]", "[", "]"),
        *("dtoverlay=dwc2", "dtoverlay=dwc2,dr_mode=host", "dtoverlay=dwc2,dr_mode=peripheral"),
        *("gpu_mem=16", "gpu_mem=64", "gpu_mem_512=64", "start_x=1", "#gpu_mem=16", "", " "),
    )
) | st.text(max_size=12)
config_files = st.tuples(st.lists(config_lines), st.sampled_from(("\n", "\r\n"))).map(
    lambda pair: pair[1].join(pair[0])
)


def edited(text: str) -> str:
    return cmdline.with_gadget(text, host_mac=MAC, guest_mac=GUEST_MAC)


def foreign(argument: str) -> bool:
    """Whether *argument* is nobody's business of ours, by a rule of its own."""
    name = argument.partition("=")[0].replace("-", "_")
    return name not in {"modules_load", "g_ether.host_addr", "g_ether.dev_addr"}


@given(command_lines)
@example("a\n\nb rootwait")
@example('"\nrootwait')
def test_command_line_is_one_line_with_ours_once_before_what_is_inits(text: str) -> None:
    after = edited(text)
    arguments = cmdline.arguments(after)
    kernel = arguments[: arguments.index("--")] if "--" in arguments else arguments

    assert "\n" not in after.rstrip("\n")
    assert [kernel.count(argument) for argument in sorted(OURS)] == [1, 1, 1]


@given(command_lines)
def test_foreign_arguments_survive_in_order(text: str) -> None:
    before = [one for one in cmdline.arguments(text) if foreign(one)]
    after = [one for one in cmdline.arguments(edited(text)) if foreign(one)]

    assert after == before


@given(command_lines)
def test_command_line_edited_twice_is_edited_once(text: str) -> None:
    once = edited(text)

    assert edited(once) == once


@given(config_files)
def test_config_txt_is_only_appended_to_and_then_holds_it_all(text: str) -> None:
    after = config_txt.with_gadget(text)

    assert after.startswith(text)
    assert config_txt.with_gadget(after) == after


@given(config_files)
def test_every_zero_gets_the_overlay_from_config_txt(text: str) -> None:
    """An oracle of its own: each model reads the file line by line, as the firmware does."""
    after = config_txt.with_gadget(text)

    for models in ({"pi0"}, {"pi0", "pi0w"}, {"pi0", "pi0w", "pi02"}):
        modes = list(overlays_read_by(after, models))
        assert modes
        assert modes[-1] != "host"


def overlays_read_by(text: str, models: set[str]) -> list[str]:
    """Return the dr_mode of each dwc2 overlay that a board of *models* loads, jumpers open."""
    matches = {"model": True, "other": True}
    found = []
    for raw in text.split("\n"):
        line = raw.strip()
        if line.startswith("[") and "]" in line:
            name = line[1 : line.rindex("]")].strip().lower()
            if name == "all":
                matches = {"model": True, "other": True}
            elif name == "none":
                matches["model"] = False
            elif name.startswith(("pi", "cm")):
                matches["model"] = name in models
            else:
                matches["other"] = False
        elif all(matches.values()) and line.startswith("dtoverlay=dwc2"):
            found.append(line.partition("dr_mode=")[2] or "otg")
    return found


@given(command_lines, config_files)
def test_undo_restores_every_byte(command_line: str, config: str) -> None:
    card = golden_card("buster")
    card.entries[boot("cmdline.txt")] = File(content=encode(command_line))
    card.entries[boot("config.txt")] = File(content=encode(config))
    held = dict(card.entries)
    if config_txt.effective(config, "cmdline"):
        return

    prepare(card)
    assert prepare(card).changes == ()
    undo(card)

    assert card.entries == held


@given(st.text(alphabet="a #=\n\tinterfacusb0static ip_address routers", max_size=80))
def test_dhcpcd_conf_and_hosts_edited_twice_are_edited_once(text: str) -> None:
    guest = network.guest_network(WORKER1, [])

    once = network.dhcpcd_conf(text, guest)
    assert network.dhcpcd_conf(once, guest) == once

    named = hosts(text, old="a", new="worker1")
    assert hosts(named, old="worker1", new="worker1") == named


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")), st.data())
def test_taking_out_of_an_untouched_file_gives_the_old_one(
    before: list[str], after: list[str], data: st.DataObject
) -> None:
    assert take_out(after, before, after) == before

    tail = data.draw(st.lists(st.sampled_from("xyz")))
    assert take_out(after, before, [*after, *tail]) in ([*before, *tail], None)


def test_places_used_here_are_those_of_the_plan() -> None:
    card = golden_card("buster")
    changed = {change.place for change in prepare(card).changes}

    assert {boot("cmdline.txt"), boot("config.txt"), root("etc/dhcpcd.conf")} <= changed
