"""What `kelpie deploy` and `kelpie destroy` do: the archives, the change set, the stack, and what is left of it."""
