"""``python -m otgd.cli`` is otgctl."""

import sys

from otgd.cli.program import main

sys.exit(main())
