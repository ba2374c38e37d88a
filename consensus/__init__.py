"""What the cluster agrees on: the metadata, the log that orders its changes, and the state machine that applies them.

Nouns: a *command* is one change; an *entry* is a batch of commands in the Raft log; the *machine* applies entries to
SQLite; a *session* makes repeated commands harmless; the *read index* makes reads linearizable. Knows nothing of HTTP,
of S3's wire forms, or of the bytes of chunks.
"""
