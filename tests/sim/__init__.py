"""Deterministic simulation: three machines of the real code in one process, on virtual time, network and disks.

`make sim SEED=n` runs one seed and says what happened, `make sim SEEDS=40` many. The same seed gives the same run,
whatever the machine does meanwhile, down to a hash over every event: so a fault that one seed in a thousand shows can
be looked at as often as needed.

| file | what it is |
| --- | --- |
| clock.py | processes, and the event loop whose time is virtual |
| network.py | connections between processes: delays, partitions, resets |
| disk.py | folders and SQLite files as a kill and as a power cut leave them |
| chunks.py | a storage node's disk |
| world.py | one simulation: it stands in for clocks, randomness and files of the whole program while it runs |
| machines.py | what runs on a machine: metadata member, storage node, gateway |
| workload.py | clients of the gateways, and the history of what they were told |
| faults.py | what goes wrong, and when |
| watching.py | what must never happen, looked at while it runs |
| verdict.py | what must hold at the end |
| controls.py | broken products, each to be caught |
"""
