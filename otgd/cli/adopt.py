"""``otgctl adopt``: take a link into the config, by a drop-in file of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import closing, suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from otgd.cli.gadgets import Matcher, places_of
from otgd.cli.printing import print_json
from otgd.errors import OtgdError
from otgd.identity import Sign

if TYPE_CHECKING:
    from otgd.cli.installation import Installation
    from otgd.cli.proposal import Proposal
    from otgd.model import Config, ObservedLink

    _SubnetType = click.ParamType[IPv4Network]
    _LinkType = click.ParamType[str]
else:
    _SubnetType = _LinkType = click.ParamType  # no generic class in click 8.1, Debian trixie's

SYSFS = Path("/sys/class/net")
FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
RELOAD = ("systemctl", "reload", "otgd.service")
RELOAD_PATIENCE_S = 60.0


class _LinkName(_LinkType):
    """A network link's name; the shell completes those of devices."""

    name = "link"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the names that begin like *incomplete*."""
        names = sorted(path.parent.name for path in SYSFS.glob("*/device"))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class _Subnet(_SubnetType):
    """An IPv4 subnet as the config takes it."""

    name = "subnet"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> IPv4Network:
        from otgd.config.values import RefusedError, parse_subnet

        try:
            return value if isinstance(value, IPv4Network) else parse_subnet(value)
        except RefusedError as err:
            self.fail(str(err), param, ctx)


@click.command()
@click.argument("link", type=_LinkName())
@click.option("--name", help="The gadget's name; default: the next one that is free.")
@click.option(
    "--by",
    type=click.Choice([str(sign) for sign in Sign]),
    help="What it shall be known by; default: the first of them that is good.",
)
@click.option("--subnet", type=_Subnet(), help="Its subnet; default: the next one that is free.")
@click.option("--no-reload", is_flag=True, help="Write the file only.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written for programs.")
@click.pass_obj
def adopt(
    installation: Installation,
    *,
    link: str,
    name: str | None,
    by: str | None,
    subnet: IPv4Network | None,
    no_reload: bool,
    as_json: bool,
) -> int:
    r"""Take LINK, a USB network device, into the config.

    Writes an entry for it into a file of its own in otgd.toml.d beside the config, and reloads
    otgd. Name and subnet go on from the first gadget's; a subnet that anything on this host uses is
    not taken. With the name of a gadget that the config has, that gadget is known by one sign more.

    The config is checked as a whole before the file is put in place; if there is a problem,
    nothing is written.

    \b
    Examples:
      sudo otgctl adopt usb0
      sudo otgctl adopt usb0 --name camera --by port --subnet 10.0.40.0/24
      sudo otgctl adopt usb0 --name ethusb3 --by port    # it is ethusb3, whatever its MAC
    """
    config = installation.config()
    proposal = _proposal(installation, config, link, name, Sign(by) if by else None, subnet)
    file = _place(installation.config_file, proposal.name)
    text = "\n".join([f"# Written by otgctl adopt {link}.", *proposal.lines]) + "\n"
    _check(installation.config_file, file, text)
    _put(file, text)
    if as_json:
        print_json({"file": str(file), "name": proposal.name, "text": text})
    else:
        print(f"Written: {file}\n\n{text}", end="")
    return 0 if no_reload else _reload(installation, quiet=as_json)


def _proposal(
    installation: Installation,
    config: Config,
    ifname: str,
    name: str | None,
    sign: Sign | None,
    subnet: IPv4Network | None,
) -> Proposal:
    from otgd.adapters.links import NetlinkLinks
    from otgd.cli.proposal import Proposer

    with closing(NetlinkLinks()) as netlink:
        links, routes = netlink.observe_links(), netlink.observe_routes()
    matcher = Matcher(config, places_of(installation.config_file))
    link = _find(ifname, links, matcher)
    device = matcher.match(link)
    if device.gadget:
        raise OtgdError(f"{ifname} is {device.gadget} already ({device.config})")
    if link.driver not in config.desired.drivers:
        drivers = ", ".join(sorted(config.desired.drivers))
        driver = f"driver {link.driver}" if link.driver else "no driver that is known"
        raise OtgdError(f"{ifname} has {driver}; [hotplug] drivers are {drivers}")
    return Proposer(config, links, routes).propose(link, name=name, sign=sign, subnet=subnet)


def _find(ifname: str, links: tuple[ObservedLink, ...], matcher: Matcher) -> ObservedLink:
    for link in links:
        if ifname in (link.ifname, *link.altnames):
            return link
    there = ", ".join(link.ifname for link in links if matcher.concerns(link)) or "none"
    raise OtgdError(f"there is no link {ifname}; USB network devices: {there}")


def _place(config_file: Path, name: str) -> Path:
    """Return the drop-in for the gadget *name*, which is not there yet."""
    from otgd.config.sources import drop_in_directory
    from otgd.config.values import ifname_fault, show

    if fault := ifname_fault(name):
        raise OtgdError(f"the name {show(name)} {fault}; choose another --name")
    file = drop_in_directory(config_file) / f"{name}.toml"
    if file.exists():
        raise OtgdError(f"{file} is there already; add the entry to it, or choose another --name")
    return file


def _check(config_file: Path, file: Path, text: str) -> None:
    """Understand the config as it would be.

    Raises:
        ConfigError: it would be refused.
    """
    from otgd.config.loading import parse_sources
    from otgd.config.sources import Source, read_sources

    parse_sources((*read_sources(config_file), Source(file=str(file), text=text)))


def _put(file: Path, text: str) -> None:
    """Put the file in its place in one step, on the disk before it has its name.

    Raises:
        OtgdError: it cannot be written; nothing is left of it.
    """
    directory = file.parent
    temporary = directory / f".{file.name}.new"
    try:
        if not directory.is_dir():
            directory.mkdir()
            directory.chmod(DIRECTORY_MODE)  # whatever umask says: otgd is not root
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fchmod(out.fileno(), FILE_MODE)
            os.fsync(out.fileno())
        temporary.replace(file)
        _sync(directory)
    except PermissionError as err:
        raise OtgdError(f"write {file}: {err.strerror}; sudo otgctl adopt") from err
    except OSError as err:
        raise OtgdError(f"write {file}: {err.strerror}") from err
    finally:
        with suppress(OSError):
            temporary.unlink()


def _sync(directory: Path) -> None:
    """Have the directory's new entry on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reload(installation: Installation, *, quiet: bool) -> int:
    if not installation.runs:
        if not quiet:
            print("\notgd does not run; it reads this when it starts.")
        return 0
    program = shutil.which(RELOAD[0])
    if program is None:
        raise OtgdError(f"written, but not in force yet: there is no {RELOAD[0]} to reload otgd")
    try:
        done = subprocess.run(  # noqa: S603 - constant words
            (program, *RELOAD[1:]),
            check=False,
            capture_output=True,
            text=True,
            timeout=RELOAD_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise OtgdError(f"written, but not in force yet: {' '.join(RELOAD)}: {err}") from err
    if done.returncode != 0:
        why = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise OtgdError(f"written, but not in force yet: {' '.join(RELOAD)}: {why[0]}")
    if not quiet:
        print("\notgd reads its config again; otgctl status shows what became of it.")
    return 0
