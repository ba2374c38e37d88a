"""Event notifications on their way out: what waits in the log's queues is sent to webhooks, by one gateway for all.

    targets.py    the webhooks of the settings, and what may be said about one
    addresses.py  which addresses may be connected to
    sending.py    one POST to one webhook: resolved, checked, verified, with a deadline
    record.py     an event as AWS writes it
    queue.py      the queue of one target: in order for each key, with patience for a target that is down
    courier.py    which queues there are, and whether it is ours to deliver them
"""
