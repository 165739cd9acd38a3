"""Import python-iptables without the two dozen processes that its own search for libraries starts.

``iptc`` asks ``ctypes.util.find_library`` (ldconfig, gcc, ld) for every library, ldconfig for the
directory of extensions, modprobe for two modules, and distutils (through setuptools, 180 ms) for
the site directory. All answers are known beforehand: the libraries by their sonames, the directory
by where the dynamic linker found libxtables. Knows neither rules nor tables.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import importlib.util
import os
import sys
import sysconfig
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from otgd.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator

_XTABLES = "libxtables.so.12"
_SONAMES = {
    "c": "libc.so.6",
    "xtables": _XTABLES,
    "ip4tc": "libip4tc.so.2",
    "ip6tc": "libip6tc.so.2",
}
_LIBDIR = "XTABLES_LIBDIR"


def import_iptc() -> ModuleType:
    """Return the package ``iptc``, importing it at the first call.

    Starts no process and leaves ``os.environ`` and ``ctypes`` as they were.

    Raises:
        PermanentError: python-iptables or the libraries of package iptables are missing. A later
            call tries anew, since an administrator may have installed them.
    """
    loaded = sys.modules.get("iptc")
    if loaded is not None:
        return loaded
    try:
        with _extensions_found(), warnings.catch_warnings():
            # Its regular expressions are no raw strings; told whenever it is compiled anew.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", SyntaxWarning)
            return _import_quietly()
    except PermanentError:
        raise
    except (ImportError, OSError, AttributeError) as err:
        _forget()
        raise PermanentError(f"load python-iptables: {err}; install python3-iptables") from err
    except Exception as err:
        # iptc has no common base for what it raises while it loads: XTablesError comes from a
        # module that is being imported, so it cannot be named here.
        _forget()
        raise PermanentError(f"load python-iptables: {err}; install iptables") from err


def _import_quietly() -> ModuleType:
    spec = importlib.util.find_spec("iptc")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("no module named iptc")
    package = importlib.util.module_from_spec(spec)
    sys.modules["iptc"] = package  # lets iptc.util come in before the package looks for libraries
    with _distutils_answered():
        util: Any = importlib.import_module("iptc.util")
    load_kernel = util.load_kernel
    util.ctypes = SimpleNamespace(
        CDLL=ctypes.CDLL,
        RTLD_GLOBAL=ctypes.RTLD_GLOBAL,
        util=SimpleNamespace(find_library=_SONAMES.get),
    )
    util.load_kernel = lambda *_args: None
    try:
        spec.loader.exec_module(package)
    finally:
        util.ctypes, util.load_kernel = ctypes, load_kernel
    return package


@contextmanager
def _distutils_answered() -> Iterator[None]:
    """Answer for distutils.sysconfig, which Python has no more from 3.12 on."""
    name = "distutils.sysconfig"
    before = sys.modules.get(name)
    stand_in: Any = ModuleType(name)
    stand_in.get_python_lib = lambda: sysconfig.get_path("purelib")
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@contextmanager
def _extensions_found() -> Iterator[None]:
    """Name the directory of extensions in the environment, where iptc and libxtables look.

    libxtables keeps a pointer to the value. glibc never frees what setenv(3) copied, so the
    variable may go afterwards.
    """
    if _LIBDIR in os.environ:
        yield
        return
    try:
        ctypes.CDLL(_XTABLES)
    except OSError as err:
        raise PermanentError(f"load {_XTABLES}: {err}; install iptables") from err
    directory = _directory_of(_XTABLES) / "xtables"
    if not directory.is_dir():
        raise PermanentError(f"find iptables extensions: no {directory}; install iptables")
    os.environ[_LIBDIR] = str(directory)
    try:
        yield
    finally:
        del os.environ[_LIBDIR]


def _directory_of(library: str) -> Path:
    """Return where the dynamic linker found a loaded library, whatever the architecture."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line.partition("/")[2]
        if f"/{library}" in line:
            return Path("/", path).parent
    raise PermanentError(f"find {library}: not among the mapped files")


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "iptc"]:
        del sys.modules[name]
