"""The cluster on top: a Docker Swarm whose nodes are the host and the guests on its cables.

otgd schedules nothing: Docker does. This package takes the steps that go wrong by hand: an address
that outlives every cable, a token that nobody sees, images without a registry, and the question
which node is which cable.

``members``, ``preflight``, ``roster``, ``archive`` and ``load`` are pure: they decide from values.
``engine`` (Docker SDK for Python), ``ssh`` (the system's ssh) and the verbs that use both do the
talking. Nothing outside ``otgctl swarm`` imports any of it, so nobody else needs the SDK.
"""
