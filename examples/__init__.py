"""Example data sets that Kelpie makes itself, so that nothing has to be downloaded."""
