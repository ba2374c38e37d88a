"""Operations on one object: write, read, copy, rename, append, tag, lock, restore."""
