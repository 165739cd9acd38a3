"""What is wrong with the way from a USB port to the Internet, and what to type against it.

Three parts that only share values. *Readers* gather what the kernel and other programs tell; each
takes the root directory below which it reads, so that a test can hand it a tree with exactly one
thing broken. *Probes* ask the guests themselves, all at once and for one second. *Checks* are pure:
they turn ``Facts`` into findings and know neither files nor sockets.

Changes nothing. Knows the planner and what is below it; the adapters' part of the facts (links,
rules, the plan) comes from the caller.
"""
