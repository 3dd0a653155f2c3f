"""Versions and the history between hosts: through object storage that they share."""
