"""The command lines and file trees of the original two-phase programs, on our networks."""
