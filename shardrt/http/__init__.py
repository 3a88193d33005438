"""The door to the outside: the gateway that routes requests to owners, its link and HTTP API."""
