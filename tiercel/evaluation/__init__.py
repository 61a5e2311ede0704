"""How good is a ranking: measures and reports."""
