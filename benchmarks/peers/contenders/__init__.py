"""
Who takes part. Each module here says in its docstring how its library is set up, and has

- ``about(node)``, which returns what runs in this process, and
- ``ROLES``, which maps a kind of work and a role to the function that plays it in a process.

A module here is imported only by the processes of its contender, in their environment.
"""
