"""The kernel's netlink families as otgd speaks them: plain sockets, no gadgets, no policy."""
