"""
How many instructions the compiled module takes for its work: a guard against slow changes.

Counts hardly differ from run to run, where times differ by factors. ``python -m
benchmarks.instructions`` compares them with those that were committed. :mod:`.cases` says what is
counted, :mod:`.counting` how, and :mod:`.baseline` what the counts are compared with.
"""
