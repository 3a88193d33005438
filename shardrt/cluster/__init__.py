"""Who owns which partition: placement, leases, membership."""
