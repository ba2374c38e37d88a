"""What each command does to the metadata, by topic. A handler is a function of (state, command) that answers a Result.

Rules of all handlers:
* check everything first, write after: a refused command leaves nothing behind (but a content that it was to take over
  goes to the queue, since nobody else will ever name it);
* equal logs give equal metadata: no clock, no randomness, nothing that differs between members;
* each row written is counted (`State.touch`), and a command writes at most `ROWS_PER_COMMAND_MAX` of them.
"""
