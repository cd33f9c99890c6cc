"""Model families: one file an architecture, each registered by its decorator."""
