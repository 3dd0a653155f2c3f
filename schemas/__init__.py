"""What two or more packages must agree on: errors, configuration, tables, records, manifests, messages."""

__version__ = "0.1.0"
