"""The outside world, one module per part of it: each keeps one port with the help of one library.

An adapter knows ports, model, errors and its library, never another adapter. It translates errno
and the library's exceptions into ``TransientError`` or ``PermanentError`` exactly once, imports
its library at first use where that is costly or may be missing, and never sleeps.
"""
