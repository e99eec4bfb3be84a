"""The server: settings, supervisor, engine, gate, resolver, routes, kernels and the command line."""
