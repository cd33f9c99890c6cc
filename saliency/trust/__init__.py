"""How far an explanation can be trusted: the figures of the report card."""
