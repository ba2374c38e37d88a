"""What this machine's store has done and how it is, in Prometheus' form.

counters.py   what one gateway worker counts while it serves: plain integers in places made beforehand
families.py   the table of all metrics: names, kinds, units, meanings; docs/METRICS.md is printed from it
processes.py  memory, CPU and open files of the processes, from /proc
gather.py     asks everybody (all workers, the metadata member, the storage nodes, /proc) for what they know, once
page.py       what was gathered as samples, and those as text

Rules: counting costs a request less than a microsecond; no label has a value that a client can choose (no bucket, no
key, no address); nothing secret is shown; a source that does not answer is left out, and its `staddle_up` says so.
"""
