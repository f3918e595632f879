"""The Python API, second part: from a run to the line (threshold, export, serve, watch)."""

from __future__ import annotations
