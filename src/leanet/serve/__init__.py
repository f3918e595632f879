"""From a run to the line: a server with a review page, and a folder that is watched."""
