"""From what people wrote by hand to otgd.toml.

Each source of facts has a module: text in, findings out. ``network`` puts the findings together to
gadgets, ``document`` writes the config. What cannot be taken over is a finding, too (``Left``), so
that nothing is lost in silence. All of it is pure but ``files``, which reads below a root.
"""
