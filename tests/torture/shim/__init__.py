"""What a power cut leaves of a folder that real processes work in, and disks whose syncs fail.

`shim.c` is loaded into the processes and writes down what they do; `log.py` builds it, starts logs and reads them;
`image.py` works out from a log, for a moment of it, which bytes and names the disk would have, and lays that out as the
folder's new content.
"""
