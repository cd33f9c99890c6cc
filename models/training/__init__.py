"""Training and measuring recognizers."""
