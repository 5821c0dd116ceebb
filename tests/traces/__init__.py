"""Labelled traces: a generator, its seeds, and a small corpus made by it.

    python -m tests.traces --seeds 1000-1040 --out DIR     traces of held-out seeds
    python -m tests.traces --corpus                        write corpus/ again

A label is what an experienced fleet engineer would say with hindsight, whatever our policy says.
Seeds: 1 to 99 are for the corpus and for work on the policy; 1000 and above are held out: nobody
tunes on them.
"""
