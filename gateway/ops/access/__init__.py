"""Operations on who may do what: policies, access control lists, ownership, public access."""
