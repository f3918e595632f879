"""One short function per verb of the command line; heavy imports stand inside the functions."""
