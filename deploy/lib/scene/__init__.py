"""A small stage of network namespaces for the quickstart and the benches. Used inside deploy/lib/cage, which cleans up."""
