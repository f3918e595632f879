"""One recipe per file: what is trained, and the detector that it gives."""
