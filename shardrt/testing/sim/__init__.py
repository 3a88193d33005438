"""A whole cluster in one event loop, in virtual time, with everything that can go wrong.

Real supervisors, memberships, shards and client sessions; simulated are the processes that they
run in, the machines' clocks, the networks between them, and the database server. All chance
comes from one seed.
"""
