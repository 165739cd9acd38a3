"""How our rules are laid out in each packet filter, and read back; the adapters move them.

Knows the model and the errors. Pure, but for the import of python-iptables.
"""
