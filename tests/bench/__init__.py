"""The benchmark: otgd beside its peers, in one run (packaging/bench.sh).

Needs nothing but the standard library and Debian's tools. Nothing here judges: the figures go to a
report, goals beside them. That the benchmark itself works is what test_bench.py holds.
"""
