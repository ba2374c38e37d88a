"""`staddle fsck`: metadata and chunks compared both ways. `fsck.py` walks, `judging.py` says what a difference means."""
