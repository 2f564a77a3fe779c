"""
The same work on lahja and on what else there is, and the table of lahja's targets.

``python -m benchmarks.peers`` measures; :mod:`benchmarks.peers.rows` says what it has to come to,
and each module in :mod:`benchmarks.peers.contenders` how its library is set up.
"""
