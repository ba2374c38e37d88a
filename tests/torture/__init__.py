"""Torture: a real server under load, broken again and again, and compared with what its clients were told.

`make torture` kills processes, `make torture-model` compares long random histories with a reference model,
`make torture-damage` rots chunks on the disk. Each run prints its seed, and each kind of check is itself tested against
a product that breaks the rule on purpose (`variants`).
"""
