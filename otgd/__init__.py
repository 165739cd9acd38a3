"""otgd: one config file maps the MACs of Pi Zeros on USB cables to subnets; a service keeps it so.

Importing the package costs nothing: every layer imports only what it needs, when it needs it.
"""

from __future__ import annotations

__version__ = "0.1.0"
