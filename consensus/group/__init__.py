"""The group of metadata members: what PySyncObj's core leaves to us when there is more than one of them.

Nouns: a *member* has a name, an address and an incarnation (random, of its folder: one that comes back empty is another
one); *voters* elect and are counted, *learners* only get the log; the *configuration* is the list of members, an entry of
the log like any other, in force from when it is in a member's log; the *post* carries frames between members.

* group.py: one member's side of it, what a server makes and gives to its RaftNode
* members.py: configurations, and which change may follow which
* messages.py, transport.py: the frames, and what of them reaches the core
* post.py, links.py: who carries them: a face, and links over TLS behind it
* replication.py: entries to the others, and how much may be under way
* elections.py: when to ask for votes, and when to give one
* probes.py: read indices
* catching_up.py: a member too far behind fetches a snapshot

The rules that keep acknowledged entries (each has a test in tests/unit/consensus/group):
* an acknowledgement leaves when what it says is durable, carries its term, and counts in this term only;
* acknowledgements, votes and answers to probes count once, and only from a voter of the counter's own configuration, by
  its incarnation: what a wiped member has said before counts no more;
* whoever hears a leader gives no vote to others, and asks whether it would be elected before it raises the term: who
  comes back from a partition deposes nobody;
* nothing from the wire is unpickled, and membership changes only by an entry that the leader itself has made.
"""
