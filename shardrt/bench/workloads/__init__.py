"""What can be run: each module has the orchestrators, and what drives and checks them."""
