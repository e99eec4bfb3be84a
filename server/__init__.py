"""The server: settings, supervisor, engine, worker, gate, routes, kernels and the command line."""
