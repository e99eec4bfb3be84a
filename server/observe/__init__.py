"""What each request cost, told to people and programs: metrics, the ledger, logs and traces."""
