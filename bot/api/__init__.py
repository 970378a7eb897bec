"""Routes of the service that are no conversation."""
