"""The small words of a node's shell: echo, cat, test, sleep and the like."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simfleet.shell import Outcome, Shell

if TYPE_CHECKING:
    from simfleet.machine import SimMachine

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
FOREVER_S = 10**7
NO_SUCH_FILE = 2
Word = Callable[["SimMachine", list[str], Shell], Outcome]


def _echo(_machine: SimMachine, args: list[str], _shell: Shell) -> Outcome:
    newline = "" if args[:1] == ["-n"] else "\n"
    return Outcome(0, " ".join(a for a in args if a not in {"-n", "-e"}) + newline)


def _printf(_machine: SimMachine, args: list[str], _shell: Shell) -> Outcome:
    text = args[0].replace("\\n", "\n") if args else ""
    for value in args[1:]:
        text = text.replace("%s", value, 1)
    return Outcome(0, text)


def _cat(machine: SimMachine, args: list[str], _shell: Shell) -> Outcome:
    if len(args) == 1 and args[0].endswith(BOOT_ID_FILE):
        return Outcome(0, machine.boot_id + "\n")
    return Outcome(1, f"cat: {' '.join(args)}: No such file or directory\n")


def _grep(machine: SimMachine, args: list[str], _shell: Shell) -> Outcome:
    words = [arg for arg in args if not arg.startswith("-")]
    if words[1:] and words[1].endswith(BOOT_ID_FILE):
        whole = any("x" in arg for arg in args if arg.startswith("-"))
        hit = words[0] == machine.boot_id if whole else words[0] in machine.boot_id
        return Outcome(0 if hit else 1)
    return Outcome(NO_SUCH_FILE, f"grep: {' '.join(words[-1:])}: No such file or directory\n")


def _test(_machine: SimMachine, args: list[str], _shell: Shell) -> Outcome:
    return Outcome(0 if test_holds([a for a in args if a != "]"]) else 1)


def _true(_machine: SimMachine, _args: list[str], _shell: Shell) -> Outcome:
    return Outcome()


def _false(_machine: SimMachine, _args: list[str], _shell: Shell) -> Outcome:
    return Outcome(1)


def _set(_machine: SimMachine, args: list[str], shell: Shell) -> Outcome:
    flags = "".join(arg for arg in args if arg.startswith("-"))
    shell.errexit = shell.errexit or "e" in flags
    return Outcome()


def _exit(_machine: SimMachine, args: list[str], shell: Shell) -> Outcome:
    shell.exited = True
    return Outcome(int(args[0]) if args and args[0].isdigit() else 0)


def _sleep(machine: SimMachine, args: list[str], _shell: Shell) -> Outcome:
    if not args or not args[0].isdigit():
        return Outcome(0, "", FOREVER_S)
    return Outcome(0, "", float(args[0]) / machine.world.speed)


def _uname(machine: SimMachine, _args: list[str], _shell: Shell) -> Outcome:
    return Outcome(0, machine.spec.kernel_version + "\n")


def _hostname(machine: SimMachine, _args: list[str], _shell: Shell) -> Outcome:
    return Outcome(0, machine.spec.name + "\n")


WORDS: dict[str, Word] = {
    "[": _test,
    "cat": _cat,
    "echo": _echo,
    "exit": _exit,
    "false": _false,
    "grep": _grep,
    "hostname": _hostname,
    "printf": _printf,
    "set": _set,
    "sleep": _sleep,
    "test": _test,
    "uname": _uname,
} | dict.fromkeys((":", "true", "sync", "trap", "mkdir", "touch", "nv-hostengine"), _true)


def test_holds(args: list[str]) -> bool:
    """The truth of a `test` expression; anything not understood is false."""
    if args[:1] == ["!"]:
        return not test_holds(args[1:])
    match args:
        case [left, "=" | "==" | "-eq", right]:
            return left == right
        case [left, "!=" | "-ne", right]:
            return left != right
        case ["-n", word]:
            return word != ""
        case ["-z", word]:
            return word == ""
        case ["-z"] | ["-e", _] | ["-f", _] | ["-d", _]:
            return True
        case [word]:
            return word not in {"", "-n"}
    return False
