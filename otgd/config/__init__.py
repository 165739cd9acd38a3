"""The config file: TOML in, ``Config`` or every problem at once out.

The way of a file: ``loading`` reads TOML, ``lines`` finds where each key stands, ``schema``
(pydantic) checks keys and single values with ``values``, ``network`` lays the gadgets out and
checks what holds between them, ``findings`` collects what is wrong with file, line and key.
Knows the model and the errors; nothing of the kernel: what depends on the host (does a subnet
overlap the LAN?) is decided at run time.
"""

from otgd.config.loading import load_config, parse_config

__all__ = ["load_config", "parse_config"]
