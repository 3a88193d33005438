"""How long a partition is without a host when hosts die, leave and join, under load."""
