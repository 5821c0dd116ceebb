"""Lives of fleets until a rule breaks: `python -m tests.fleet_machine --steps 10000 --seed 1`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter

from tests.fleet_machine.machine import Machine, Violated


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="in all")
    parser.add_argument("--life", type=int, default=150, help="steps of one life")
    parser.add_argument("--seed", type=int, default=1, help="of the first life")
    parser.add_argument("--profile", default="all")
    parser.add_argument("--keep-going", action="store_true", help="count what breaks, go on")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    did, broken, done, seed = Counter(), Counter(), 0, args.seed
    first: dict[str, str] = {}
    began = time.process_time()
    while done < args.steps:
        machine = Machine(seed, args.profile)
        try:
            machine.run(args.life)
        except Violated as e:
            broken[e.rule] += 1
            first.setdefault(e.rule, str(e))
            if not args.keep_going:
                say(str(e))
                return 1
        done, seed = done + machine.steps, seed + 1
        did += machine.did
    for rule, text in first.items():
        say(f"== {rule}\n{text}\n")
    took = time.process_time() - began
    say(f"{done} steps, {seed - args.seed} lives, {took:.0f} s CPU; broken: {dict(broken)}")
    say(", ".join(f"{k} {n}" for k, n in sorted(did.items())))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
