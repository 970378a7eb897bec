"""Measurements of Atelier, each runnable by one command; RESULTS.md has the figures with machine, versions and date."""
