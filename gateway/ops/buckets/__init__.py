"""Operations on a bucket: itself, its listings, and what it is set to."""
