"""otgctl, the administrator's tool: one module per command group, loaded when its command runs.

The top layer: builds adapters and prints. A command returns its exit code and raises ``OtgdError``
for what it cannot do; ``program.main`` turns that into one line on stderr.
"""

from otgd.cli.program import main

__all__ = ["main"]
