"""The laboratory: real kernel namespaces for tests, and the things plugged into them."""

from __future__ import annotations
