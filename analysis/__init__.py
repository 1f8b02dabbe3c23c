"""Trained networks -> representations of their layers -> CKA -> report. Start at ``analysis.similarity``."""
