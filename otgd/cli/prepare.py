"""``otgctl prepare`` and ``otgctl verify``: the guest's end, from the same config.

Chooses the card (directories, an image, a device), shows or applies the plan that ``otgd.guest``
makes for it, and asks plugged guests over ssh.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from otgd.cli.installation import GadgetName
from otgd.cli.printing import print_json, print_line, print_table
from otgd.guest import verify as guest_verify
from otgd.guest import workbench
from otgd.guest.device import find_device
from otgd.guest.identity import Login
from otgd.guest.mounted import MountedCard, find_boot
from otgd.guest.plan import Wishes, diff, make_plan, observe
from otgd.guest.release import Release
from otgd.guest.tree import CardError, read_tree
from otgd.guest.undo import MANIFEST, places_of, plan_undo, read_record, remember
from otgd.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from otgd.cli.installation import Installation
    from otgd.guest.plan import CardPlan
    from otgd.guest.tree import Card, Change
    from otgd.model import GadgetSpec

PREPARE_EXAMPLES = """
\b
Examples:
  sudo otgctl prepare ethusb1 --boot /media/pi/bootfs --root /media/pi/rootfs
  otgctl prepare ethusb1 --image raspios.img.xz --out worker1.img
  otgctl prepare --all --image raspios.img.xz --out cards/
  sudo otgctl prepare ethusb2 --device /dev/sdb --dry-run
  sudo otgctl prepare --undo --device /dev/sdb
"""
VERIFY_EXAMPLES = """
\b
Examples:
  otgctl verify
  otgctl verify ethusb1 ethusb3 --user pi
"""
SSH_CONNECT_S = 5
SSH_TIMEOUT_S = 20
EX_DIFFERS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mode:
    """What is to be done with a card."""

    dry_run: bool
    check: bool
    undo: bool
    force: bool
    yes: bool

    @property
    def only_looks(self) -> bool:
        return self.dry_run or self.check


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where the card is, as the command line says."""

    boot: Path | None
    root: Path | None
    image: Path | None
    device: Path | None
    out: Path | None

    def check(self, *, everybody: bool) -> None:
        """Refuse what does not name exactly one card."""
        named = [self.root is not None, self.image is not None, self.device is not None]
        if sum(named) != 1:
            raise click.UsageError("name the card with --root, --image or --device")
        if self.boot and not self.root:
            raise click.UsageError("--boot goes with --root")
        if self.root and self.root.samefile("/"):
            raise click.UsageError(f"--root {self.root} is this computer's own; name a card's")
        if self.out and not self.image:
            raise click.UsageError("--out goes with --image")
        if everybody and not (self.image and self.out):
            raise click.UsageError("--all goes with --image FILE and --out DIR")


def _path(**kwargs: bool) -> click.Path:
    return click.Path(path_type=Path, **kwargs)


@click.command(epilog=PREPARE_EXAMPLES)
@click.argument("name", type=GadgetName(), required=False)
@click.option("--all", "everybody", is_flag=True, help="One image for each gadget, into --out.")
@click.option("--boot", type=_path(file_okay=False, exists=True), help="Mounted boot partition.")
@click.option("--root", type=_path(file_okay=False, exists=True), help="Mounted root partition.")
@click.option("--image", type=_path(dir_okay=False, exists=True), help="Image, .img or .img.xz.")
@click.option("--device", type=_path(exists=True), help="Card reader's disk, such as /dev/sdb.")
@click.option("--out", type=_path(), help="Write a copy here; the image itself stays as it is.")
@click.option("--dry-run", is_flag=True, help="Show what would change as a diff; change nothing.")
@click.option(
    "--check", is_flag=True, help="Exit 0 if the card holds it all, 1 with a diff if not."
)
@click.option("--undo", is_flag=True, help="Put back what the card held before.")
@click.option("--force", is_flag=True, help="Overwrite --out; undo files that were edited since.")
@click.option("--yes", is_flag=True, help="Do not ask before writing to a device.")
@click.option("--release", type=click.Choice(list(map(str, Release))), help="Not the card's own.")
@click.option("--dns", multiple=True, default=("8.8.8.8",), show_default=True, help="Repeatable.")
@click.option("--motd", help="Message of the day; empty for none.")
@click.option("--user", help="Who logs in: with --authorized-key, --password-hash or both.")
@click.option("--authorized-key", type=click.File(), help="Public key file for --user.")
@click.option(
    "--password-hash",
    default="",
    help="As from `openssl passwd -6`, for a new --user; `-` reads it from a pipe.",
)
@click.option("--gpu-mem/--no-gpu-mem", default=None, help="Set gpu_mem=16 [default: no camera].")
@click.pass_obj
def prepare(
    installation: Installation,
    *,
    name: str | None,
    everybody: bool,
    boot: Path | None,
    root: Path | None,
    image: Path | None,
    device: Path | None,
    out: Path | None,
    dry_run: bool,
    check: bool,
    undo: bool,
    force: bool,
    yes: bool,
    release: str | None,
    dns: tuple[str, ...],
    motd: str | None,
    user: str | None,
    authorized_key: IO[str] | None,
    password_hash: str,
    gpu_mem: bool | None,
) -> int:
    """Make an SD card the card of the gadget NAME.

    Writes what the config says of the gadget: MACs, hostname, address, gateway; enables the
    USB gadget, and ssh. What the card held before is kept on it, for --undo.
    """
    source = _Source(boot=boot, root=root, image=image, device=device, out=out)
    source.check(everybody=everybody)
    mode = _Mode(dry_run=dry_run, check=check, undo=undo, force=force, yes=yes)
    if undo:
        if name or everybody or out:
            raise click.UsageError("--undo takes a card and nothing else: no NAME, --all or --out")
        return _prepare_one(None, Wishes(), source, mode)
    wishes = Wishes(
        release=Release(release) if release else None,
        dns=tuple(_address(one) for one in dns),
        motd=motd,
        login=_login(user, authorized_key.read() if authorized_key else "", password_hash),
        gpu_mem=gpu_mem,
    )
    specs = installation.config().desired.gadgets
    if everybody:
        if name or mode.only_looks:
            raise click.UsageError("--all goes with neither NAME nor --check nor --dry-run")
        return _prepare_all(specs, wishes, source, mode)
    return _prepare_one(_gadget(specs, name), wishes, source, mode)


@click.command(epilog=VERIFY_EXAMPLES)
@click.argument("names", type=GadgetName(), nargs=-1)
@click.option("--user", help="Whom to log in as (default: what ssh's own config says).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def verify(
    installation: Installation, *, names: tuple[str, ...], user: str | None, as_json: bool
) -> int:
    """Ask plugged guests over ssh whether they are as the config wants them.

    Compares hostname, both MACs, address and gateway. Without NAMES it asks all. Exits with 1 if
    one differs or does not answer.
    """
    specs = installation.config().desired.gadgets
    chosen = [_gadget(specs, name) for name in names] or list(specs)
    asked = [(spec, _ask(spec, user)) for spec in chosen]
    verdicts = [_hear(spec, ssh) for spec, ssh in asked]
    if as_json:
        print_json([_document(verdict) for verdict in verdicts])
    else:
        _print_verdicts(verdicts)
    return 0 if all(verdict.good for verdict in verdicts) else 1


# --- choosing ------------------------------------------------------------------------------------


def _gadget(specs: tuple[GadgetSpec, ...], name: str | None) -> GadgetSpec:
    known = ", ".join(spec.name for spec in specs) or "none"
    if name is None:
        raise click.UsageError(f"name the gadget (the config has {known}), or say --all or --undo")
    for spec in specs:
        if name in {spec.name, spec.hostname}:
            return spec
    raise click.UsageError(f"the config has no gadget {name}; it has {known}")


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError as err:
        raise click.UsageError(f"--dns {text}: {err}; write an IPv4 address") from err


def _login(user: str | None, key: str, password_hash: str) -> Login | None:
    key = key.strip()
    if password_hash == "-":  # noqa: S105 - none: it comes through standard input
        password_hash = sys.stdin.readline().strip()
    if user is None:
        if key or password_hash:
            raise click.UsageError("--authorized-key and --password-hash go with --user")
        return None
    if not (key or password_hash):
        raise click.UsageError("--user needs --authorized-key, --password-hash or both")
    if "\n" in key or '"' in key or key.startswith("-----"):
        raise click.UsageError("--authorized-key wants a file with one public key, such as *.pub")
    if ":" in password_hash or '"' in password_hash or "\n" in password_hash:
        raise click.UsageError("--password-hash wants a hash as in /etc/shadow")
    if not user.isidentifier() and not user.replace("-", "_").isidentifier():
        raise click.UsageError(f"--user {user}: write a login name such as pi")
    return Login(name=user, key=key, password_hash=password_hash)


# --- one card ------------------------------------------------------------------------------------


def _prepare_one(spec: GadgetSpec | None, wishes: Wishes, source: _Source, mode: _Mode) -> int:
    with _card(source, mode) as (card, writable):
        changes, plan = _planned(card, spec, wishes, mode)
        if mode.only_looks:
            return _shown(changes, plan, mode)
        if changes or source.out:
            with writable() as target:
                target.apply(changes)
    _tell(changes, plan, mode)
    return 0


def _planned(
    card: Card, spec: GadgetSpec | None, wishes: Wishes, mode: _Mode
) -> tuple[tuple[Change, ...], CardPlan | None]:
    """Return every change to make, the manifest first, so that it knows of each that follows."""
    if spec is None:
        record = read_record(read_tree(card, [MANIFEST]))
        return plan_undo(read_tree(card, places_of(record)), force=mode.force), None
    tree = observe(card, wishes)
    plan = make_plan(tree, spec, wishes)
    return ((remember(tree, plan.changes), *plan.changes) if plan.changes else ()), plan


@contextmanager
def _card(
    source: _Source, mode: _Mode
) -> Iterator[tuple[Card, Callable[[], AbstractContextManager[Card]]]]:
    """Yield the card to read, and what opens the card to write."""
    if source.root:
        mounted = MountedCard(boot=source.boot or find_boot(source.root), root=source.root)
        yield mounted, lambda: nullcontext(mounted)
    elif source.device:
        device = find_device(source.device)
        if not (mode.only_looks or mode.yes):
            size = f"{device.size_bytes / 1e9:.1f} GB"
            click.confirm(f"Write to {device.path} ({device.model}, {size})?", abort=True)
        with workbench.device_mounted(device.partitions, read_only=mode.only_looks) as card:
            yield card, lambda: nullcontext(card)
    elif source.image:
        with _image(source.image, _target(source, mode), mode) as opened:
            yield opened


@contextmanager
def _image(
    image: Path, target: Path, mode: _Mode
) -> Iterator[tuple[Card, Callable[[], AbstractContextManager[Card]]]]:
    with _bar(image.name, image.stat().st_size, quiet=mode.only_looks) as progress:
        folder = None if mode.only_looks else target.parent
        with (
            workbench.unpacked(image, folder, progress) as plain,
            workbench.opened(plain, read_only=True) as card,
        ):
            yield card, lambda: workbench.edited_copy(plain, target, lambda _: None)


def _target(source: _Source, mode: _Mode) -> Path:
    image = source.image or Path()
    if source.out is None:
        if workbench.is_packed(image) and not mode.only_looks:
            raise click.UsageError(f"{image} is packed; name the image to write with --out")
        return image
    if source.out.exists() and not mode.force:
        raise click.UsageError(f"{source.out} exists; remove it, or say --force")
    return source.out


def _shown(changes: tuple[Change, ...], plan: CardPlan | None, mode: _Mode) -> int:
    text = diff(change for change in changes if change.place != MANIFEST)
    # A terminal obeys what a card's file may hold; a patch program wants it as it is.
    sys.stdout.write(printable(text, keep="\n\t") if sys.stdout.isatty() else text)
    for note in plan.notes if plan else ():
        print_line(f"note: {note}", error=True)
    return EX_DIFFERS if mode.check and changes else 0


def _tell(changes: tuple[Change, ...], plan: CardPlan | None, mode: _Mode) -> None:
    for change in changes:
        if change.place != MANIFEST:
            print(f"{'restored' if mode.undo else 'wrote'} {change.place}")
    if plan is None:
        print("The card is as it was before otgctl prepare.")
        return
    for note in plan.notes:
        print_line(f"note: {note}", error=True)
    done = "is now" if changes else "was already"
    print(f"The card {done} that of {plan.gadget} ({plan.release}).")


# --- all cards -----------------------------------------------------------------------------------


def _prepare_all(
    specs: tuple[GadgetSpec, ...], wishes: Wishes, source: _Source, mode: _Mode
) -> int:
    image, out = source.image or Path(), source.out or Path()
    targets = {spec.name: out / f"{spec.hostname or spec.name}.img" for spec in specs}
    there = [str(target) for target in targets.values() if target.exists()]
    if there and not mode.force:
        raise click.UsageError(f"{', '.join(there)} exists; remove it, or say --force")
    out.mkdir(parents=True, exist_ok=True)
    packed = image.stat().st_size if workbench.is_packed(image) else 0
    with ExitStack() as stack:
        with _bar("unpacking", packed, quiet=not packed) as progress:
            plain = stack.enter_context(workbench.unpacked(image, out, progress))
        for spec in specs:
            _write_image(spec, wishes, plain, targets[spec.name], mode)
    return 0


def _write_image(spec: GadgetSpec, wishes: Wishes, plain: Path, target: Path, mode: _Mode) -> None:
    with (
        _bar(target.name, plain.stat().st_size, quiet=False) as progress,
        workbench.edited_copy(plain, target, progress) as card,
    ):
        changes, plan = _planned(card, spec, wishes, mode)
        card.apply(changes)
    for note in plan.notes if plan else ():
        print_line(f"note: {note}", error=True)
    print(f"wrote {target} for {spec.name}")


@contextmanager
def _bar(title: str, total_bytes: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield what advances a progress bar on the terminal; nothing is shown elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total_bytes)
        yield lambda copied_bytes: progress.advance(task, copied_bytes)


# --- verify --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What one guest said, or why it said nothing."""

    gadget: str
    findings: tuple[guest_verify.Finding, ...] = ()
    fault: str = ""

    @property
    def good(self) -> bool:
        return not self.fault and all(finding.agrees for finding in self.findings)


def _ask(spec: GadgetSpec, user: str | None) -> subprocess.Popen[str]:
    """Start asking a guest; all are asked at once, so that silent ones cost their time together."""
    program = shutil.which("ssh")
    if program is None:
        raise CardError("run ssh: it is not installed; install the package openssh-client")
    command = [program, "-o", "BatchMode=yes", "-o", f"ConnectTimeout={SSH_CONNECT_S}"]
    # A guest's key belongs to its card: a swapped card must not pass for the former.
    command += ["-o", "StrictHostKeyChecking=accept-new"]
    command += ["-l", user] if user else []
    return subprocess.Popen(  # noqa: S603 - no shell; the address comes from a checked config
        [*command, str(spec.guest), f"sh -c {shlex.quote(guest_verify.QUESTIONS)}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _hear(spec: GadgetSpec, ssh: subprocess.Popen[str]) -> _Verdict:
    try:
        answers, complaint = ssh.communicate(timeout=SSH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        ssh.kill()
        ssh.communicate()
        return _Verdict(gadget=spec.name, fault=f"no answer from {spec.guest} in {SSH_TIMEOUT_S} s")
    facts = guest_verify.read_answers(answers)
    if facts is None:
        reason = complaint.strip().splitlines()[-1:] or ["it answered nothing of use"]
        return _Verdict(gadget=spec.name, fault=f"ssh {spec.guest}: {reason[0]}")
    return _Verdict(gadget=spec.name, findings=guest_verify.compare(spec, facts))


def _print_verdicts(verdicts: list[_Verdict]) -> None:
    rows = [(verdict.gadget, *row) for verdict in verdicts for row in _rows(verdict)]
    print_table(("GADGET", "WHAT", "CONFIG", "GUEST", "VERDICT"), rows)


def _rows(verdict: _Verdict) -> Iterator[tuple[str, str, str, str]]:
    if verdict.fault:
        yield "ssh", "", "", verdict.fault
    for finding in verdict.findings:
        yield finding.subject, finding.wanted, finding.found, finding.remedy or "as configured"


def _document(verdict: _Verdict) -> dict[str, object]:
    return {
        "gadget": verdict.gadget,
        "good": verdict.good,
        "fault": verdict.fault,
        "findings": [{**asdict(finding), "agrees": finding.agrees} for finding in verdict.findings],
    }
