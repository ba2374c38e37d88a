"""Linearizability: what concurrent clients of several gateways were told fits one order of all operations, in which each
took effect at one moment between its request and its answer.

`clients` make a *history* (history.py) through any number of gateways, `checker` searches for the order, `controls` spoil
real histories in ways that must be noticed, `disturbing` cuts, kills, stops and misdates machines meanwhile.

    make linear RUNS=10 SECONDS=60 PARTITIONS=1
"""
