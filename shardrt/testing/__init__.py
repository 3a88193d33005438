"""What tests of durable applications need: a database server of their own, and more."""
