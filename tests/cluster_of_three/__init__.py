"""Three machines make one store: short runs, with real processes, of what `make torture-cluster` and `make linear` do for
long. tests/trio.py starts the machines."""
