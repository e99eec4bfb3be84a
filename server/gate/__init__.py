"""The gate decides what enters: it resolves, checks, admits, leases and releases."""
