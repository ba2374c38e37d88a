"""What a node does for its copies beside serving them: it settles what counts, lets go of what nobody wants, reads
everything again, mends and puts aside what is damaged, and gives back the space of the dead. `care.py` puts it together."""
