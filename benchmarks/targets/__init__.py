"""What was meant to be reached on two cores, and what is."""
