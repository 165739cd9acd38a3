"""When a glance is enough, and when everything has to be looked at."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from otgd.errors import OtgdError, PermanentError
from otgd.model import LOOPBACK, DesiredState, GadgetSpec, Report, Rule, Stray, UnknownPolicy
from otgd.reconciler import Reconciler
from tests.fake_kernel import FakeKernel
from tests.fakes import FakeFirewall


def spec(number: int) -> GadgetSpec:
    return GadgetSpec(
        name=f"ethusb{number}",
        mac=f"00:22:82:ff:ff:0{number}",
        host=IPv4Interface(f"10.0.1{number}.1/24"),
        guest=IPv4Address(f"10.0.1{number}.2"),
    )


class Bench:
    """Gadget 1 is configured and all is well; 2 is wanted and absent; a USB modem is unlisted.

    With *hub* both are members, and there is lo.
    """

    def __init__(
        self, unknown: UnknownPolicy = UnknownPolicy.REPORT, hub: IPv4Address | None = None
    ) -> None:
        self.kernel = FakeKernel()
        self.kernel.loopback()
        self.firewall = FakeFirewall()
        gadgets = tuple(replace(spec(n), via_hub=hub is not None) for n in (1, 2))
        self.desired = DesiredState(gadgets=gadgets, unknown=unknown, hub=hub)
        self.reconciler = Reconciler(
            links=self.kernel,
            firewall=self.firewall,
            forwarding=self.kernel,
            before_look=self.kernel.take_named,
        )
        self.eth0 = self.kernel.plug("eth0", "b8:27:eb:00:00:01", driver="smsc95xx")
        self.kernel.change(self.eth0, up=True)
        self.kernel.default_route(self.eth0)
        self.modem = self.kernel.plug("wwan0", "02:00:00:00:00:09")
        self.usb1 = self.plug(1)
        assert self.run(everything=True).remaining.converged

    def plug(self, number: int) -> int:
        return self.kernel.plug(f"usb{number}", f"00:22:82:ff:ff:0{number}")

    def run(self, *, everything: bool = False) -> Report:
        return self.reconciler.run_pass(self.desired, everything=everything)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_plug_is_served_at_a_glance(bench: Bench) -> None:
    bench.kernel.calls.clear()
    second = bench.plug(2)

    report = bench.run()

    assert report.gadgets == frozenset({"ethusb2"})
    assert report.remaining.converged
    assert bench.kernel.links[second].ifname == "ethusb2"
    assert "observe_routes" not in bench.kernel.calls


def test_an_unplug_is_served_at_a_glance(bench: Bench) -> None:
    bench.kernel.unplug(bench.usb1)

    report = bench.run()

    assert report.gadgets == frozenset({"ethusb1"})
    assert bench.firewall.observe() == frozenset()


def test_links_that_were_seen_initialized_and_up_have_settled(bench: Bench) -> None:
    settled = bench.reconciler.has_settled
    assert settled({bench.usb1})
    assert settled({bench.usb1, bench.eth0})
    assert not settled({bench.usb1, bench.modem})  # it is down

    second = bench.plug(2)
    assert not settled({bench.usb1, second})
    bench.run()
    assert settled({bench.usb1, second})

    bench.kernel.unplug(second)
    bench.run()
    assert not settled({second})


def test_a_link_that_waits_for_udev_has_not_settled(bench: Bench) -> None:
    bench.kernel.change(bench.eth0, initialized=False)
    bench.run()

    assert bench.reconciler.has_settled({bench.usb1})
    assert not bench.reconciler.has_settled({bench.eth0})


def test_nothing_has_settled_while_there_is_trouble(bench: Bench) -> None:
    bench.kernel.fail["set_up"] = [PermanentError("the link is busy")] * 2
    bench.kernel.change(bench.usb1, up=False)
    bench.run()
    assert not bench.reconciler.has_settled({bench.eth0})

    bench.run()
    assert bench.reconciler.has_settled({bench.eth0})

    bench.kernel.fail["observe_links"] = [PermanentError("not permitted")]
    with pytest.raises(PermanentError):
        bench.run()
    assert not bench.reconciler.has_settled({bench.eth0})


def test_nothing_named_is_nothing_to_do(bench: Bench) -> None:
    report = bench.run()

    assert report.idle
    assert report.applied == ()


def test_an_event_that_tells_nothing_new_is_idle_and_trouble_is_not(bench: Bench) -> None:
    bench.kernel.change(bench.usb1, up=True)  # as it was
    assert bench.run().idle

    bench.kernel.change(bench.usb1, up=False)
    assert not bench.run().idle
    assert bench.kernel.links[bench.usb1].up


def test_a_link_that_came_and_went_is_nothing(bench: Bench) -> None:
    bench.kernel.unplug(bench.plug(2))

    assert bench.run().idle


def test_a_rule_that_somebody_took_is_put_back_at_a_glance(bench: Bench) -> None:
    before = bench.firewall.observe()
    bench.firewall.held.pop()

    assert bench.run().gadgets == frozenset({"ethusb1"})
    assert bench.firewall.observe() == before


def test_the_uplink_is_known_at_a_glance(bench: Bench) -> None:
    bench.plug(2)

    assert bench.run().remaining.uplink == "eth0"


def test_the_unlisted_are_told_at_a_glance(bench: Bench) -> None:
    bench.plug(2)

    assert [link.ifname for link in bench.run().remaining.unknown] == ["wwan0"]


@pytest.mark.parametrize("what", ["background", "unlisted", "new unlisted", "stray", "config"])
def test_what_is_not_plain_is_looked_at_as_a_whole(bench: Bench, what: str) -> None:
    match what:
        case "background":
            bench.kernel.change(bench.eth0, carrier=False)
        case "unlisted":
            bench.kernel.change(bench.modem, up=True)
        case "new unlisted":
            bench.kernel.plug("usb9", "02:00:00:00:00:77")
        case "stray":
            bench.firewall.held.add(Stray(text="somebody's"))
        case _:
            bench.desired = DesiredState(gadgets=(spec(2),))

    report = bench.run()

    assert report.gadgets is None
    assert report.remaining.converged


def test_a_mac_that_changes_under_a_link_is_looked_at_as_a_whole(bench: Bench) -> None:
    bench.kernel.change(bench.usb1, mac="02:00:00:00:00:55")

    report = bench.run()

    assert report.gadgets is None
    assert bench.kernel.links[bench.usb1].addresses == ()


def test_a_quarantine_is_always_looked_at_as_a_whole() -> None:
    bench = Bench(UnknownPolicy.BLOCK)
    bench.plug(2)

    assert bench.run().gadgets is None


def test_a_name_that_an_unnamed_gadget_holds_is_found_by_the_whole(bench: Bench) -> None:
    """A glance does not see that ethusb1's link sits on ethusb2's name; the kernel does."""
    bench.kernel.change(bench.usb1, ifname="ethusb2")
    bench.kernel.take_named()
    second = bench.plug(2)

    report = bench.run()

    assert report.gadgets is None
    assert report.remaining.converged
    assert bench.kernel.links[bench.usb1].ifname == "ethusb1"
    assert bench.kernel.links[second].ifname == "ethusb2"


def test_trouble_keeps_the_next_pass_whole_until_it_is_over(bench: Bench) -> None:
    bench.plug(2)
    bench.kernel.fail["set_up"] = [PermanentError("no")] * 2
    assert bench.run().failures
    assert bench.run().gadgets is None
    assert bench.run().gadgets == frozenset()


def test_a_look_that_fails_forgets_nothing(bench: Bench) -> None:
    second = bench.plug(2)
    bench.kernel.fail["observe_links"] = [PermanentError("no")]
    with pytest.raises(PermanentError):
        bench.run()

    assert bench.run().gadgets is None
    assert bench.kernel.links[second].ifname == "ethusb2"


def test_a_firewall_that_cannot_be_read_is_looked_at_as_a_whole(bench: Bench) -> None:
    class Unreadable(FakeFirewall):
        broken = False

        def observe(self) -> frozenset[Rule]:
            if self.broken:
                raise PermanentError("install iptables")
            return super().observe()

    firewall = Unreadable()
    reconciler = Reconciler(
        links=bench.kernel,
        firewall=firewall,
        forwarding=bench.kernel,
        before_look=bench.kernel.take_named,
    )
    reconciler.run_pass(bench.desired)
    firewall.broken = True
    bench.plug(2)

    report = reconciler.run_pass(bench.desired, everything=False)

    assert report.gadgets is None
    assert report.observed.firewall_fault == "install iptables"


def test_a_step_that_does_nothing_is_not_taken_for_done(bench: Bench) -> None:
    """No event follows it, so only the list of whom the pass is about keeps the gadget in view."""

    class Deaf(FakeKernel):
        deaf = False

        def set_up(self, ifindex: int, *, up: bool = True) -> None:
            if not self.deaf:
                super().set_up(ifindex, up=up)

    kernel = Deaf()
    ifindex = kernel.plug("usb1", "00:22:82:ff:ff:01")
    reconciler = Reconciler(
        links=kernel,
        firewall=bench.firewall,
        forwarding=kernel,
        before_look=kernel.take_named,
    )
    reconciler.run_pass(bench.desired)
    kernel.change(ifindex, up=False)
    kernel.deaf = True

    assert reconciler.run_pass(bench.desired, everything=False).undone


def test_observing_for_others_raises_what_the_links_raise(bench: Bench) -> None:
    error: OtgdError = PermanentError("no")
    bench.kernel.fail["observe_links"] = [error]

    with pytest.raises(PermanentError):
        bench.reconciler.observe()


# --- with a hub ----------------------------------------------------------------------------------

HUB = IPv4Address("10.0.10.1")


@pytest.fixture
def hub_bench() -> Bench:
    return Bench(hub=HUB)


def source_of(bench: Bench, ifindex: int) -> IPv4Address | None:
    return bench.kernel.observe_routes(ifindex)[0].source


def test_a_plugged_member_is_served_at_a_glance(hub_bench: Bench) -> None:
    hub_bench.kernel.calls.clear()
    second = hub_bench.plug(2)

    report = hub_bench.run()

    assert report.gadgets == frozenset({"ethusb2"})
    assert report.remaining.converged
    assert "observe_routes" not in hub_bench.kernel.calls
    assert source_of(hub_bench, second) == HUB


def test_a_route_that_somebody_took_is_put_back_at_a_glance(hub_bench: Bench) -> None:
    hub_bench.kernel.flush_routes(hub_bench.usb1)

    assert hub_bench.run().gadgets == frozenset({"ethusb1"})
    assert source_of(hub_bench, hub_bench.usb1) == HUB
    assert hub_bench.run().gadgets == frozenset()


def test_a_route_that_went_as_its_link_changed_is_put_back_in_the_same_pass(
    hub_bench: Bench,
) -> None:
    hub_bench.kernel.change(hub_bench.usb1, up=False)

    report = hub_bench.run()

    assert report.remaining.converged
    assert source_of(hub_bench, hub_bench.usb1) == HUB


def test_a_rule_of_a_member_is_put_back_without_touching_its_route(hub_bench: Bench) -> None:
    hub_bench.firewall.held.pop()
    hub_bench.kernel.calls.clear()

    assert hub_bench.run().remaining.converged
    assert "add_route" not in hub_bench.kernel.calls


def test_an_unplugged_member_is_forgotten_at_a_glance(hub_bench: Bench) -> None:
    hub_bench.kernel.unplug(hub_bench.usb1)

    assert hub_bench.run().gadgets == frozenset({"ethusb1"})
    assert hub_bench.run().applied == ()


def test_a_lost_hub_is_looked_at_as_a_whole_and_all_members_are_mended(hub_bench: Bench) -> None:
    second = hub_bench.plug(2)
    hub_bench.run()
    hub_bench.kernel.remove_address(LOOPBACK, IPv4Interface(HUB))

    report = hub_bench.run()

    assert report.gadgets is None
    assert report.remaining.converged
    assert [source_of(hub_bench, i) for i in (hub_bench.usb1, second)] == [HUB, HUB]


def test_a_hub_that_cannot_be_had_keeps_passes_whole(hub_bench: Bench) -> None:
    hub_bench.kernel.foreign_address(hub_bench.eth0, "10.0.10.7/24")
    assert hub_bench.run().remaining.hub_fault
    hub_bench.plug(2)

    report = hub_bench.run()

    assert report.gadgets is None
    assert report.remaining.converged
    assert report.remaining.hub_fault


def test_without_a_hub_no_route_is_looked_at_at_a_glance(bench: Bench) -> None:
    bench.kernel.calls.clear()
    bench.plug(2)
    bench.run()

    assert not [call for call in bench.kernel.calls if call.startswith("observe_routes")]
