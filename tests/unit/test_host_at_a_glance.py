"""The host's own facts, forwarding and passage, whatever part of the links is looked at."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import pytest

from otgd.model import DesiredState, GadgetSpec, Passage, Report
from otgd.reconciler import Reconciler
from tests.fake_kernel import FakeKernel
from tests.fakes import FakeFirewall


class FakePassage:
    """FORWARD with a DROP, and our rule in it or not."""

    def __init__(self) -> None:
        self.seen = Passage.CLOSED

    def look(self) -> Passage:
        return self.seen

    def open(self) -> None:
        self.seen = Passage.GRANTED

    def shut(self) -> None:
        self.seen = Passage.CLOSED


class Bench:
    """A host with Docker on it; gadget 1 is configured, 2 is wanted and absent."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.passage = FakePassage()
        self.desired = DesiredState(gadgets=(spec(1), spec(2, masquerade=False, isolate=True)))
        self.reconciler = Reconciler(
            links=self.kernel,
            firewall=FakeFirewall(),
            forwarding=self.kernel,
            passage=self.passage,
            before_look=self.kernel.take_named,
        )
        uplink = self.kernel.plug("eth0", "b8:27:eb:00:00:01", driver="smsc95xx")
        self.kernel.default_route(uplink)
        self.kernel.plug("usb0", "00:22:82:ff:ff:01")
        assert self.reconciler.run_pass(self.desired).remaining.converged
        assert self.passage.seen is Passage.GRANTED

    def glance(self) -> Report:
        return self.reconciler.run_pass(self.desired, everything=False)


def spec(number: int, *, masquerade: bool = True, isolate: bool = False) -> GadgetSpec:
    return GadgetSpec(
        name=f"ethusb{number}",
        mac=f"00:22:82:ff:ff:0{number}",
        host=IPv4Interface(f"10.0.1{number}.1/24"),
        guest=IPv4Address(f"10.0.1{number}.2"),
        masquerade=masquerade,
        isolate=isolate,
    )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_passage_stays_open_while_nothing_happens(bench: Bench) -> None:
    assert bench.glance().applied == ()
    assert bench.passage.seen is Passage.GRANTED


def test_passage_stays_open_when_a_gadget_comes_that_does_not_need_it(bench: Bench) -> None:
    bench.kernel.plug("usb1", "00:22:82:ff:ff:02")
    assert bench.glance().remaining.converged
    assert bench.passage.seen is Passage.GRANTED


def test_passage_that_somebody_closed_is_opened_again(bench: Bench) -> None:
    bench.passage.seen = Passage.CLOSED
    assert bench.glance().remaining.converged
    assert bench.passage.seen is Passage.GRANTED


def test_forwarding_that_somebody_switched_off_is_switched_on_again(bench: Bench) -> None:
    bench.kernel.forwards = False
    assert bench.glance().remaining.converged
    assert bench.kernel.forwards
