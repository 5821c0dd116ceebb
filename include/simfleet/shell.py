"""The little of POSIX shell that a repair pod's command line uses.

Lists with `;`, `&&`, `||`, `!`, `if ... then ... else ... fi`, braces, variables,
`$(command)`, redirections and `set -e`. Anything else is an error, as an unknown command is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

NOT_FOUND = 127
BAD_SYNTAX = 2
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}|\$(\w+)")
_WORDS_OF_GRAMMAR = frozenset({"then", "else", "elif", "fi", "}", "do", "done"})
_SEPARATORS = frozenset({";", "\n", "&"})


class ShellSyntax(ValueError):
    """A script that this shell does not understand."""


@dataclass(slots=True)
class Outcome:
    """What a command did: exit code, output, real seconds it took."""

    code: int = 0
    out: str = ""
    took_s: float = 0.0


Command = Callable[[list[str], "Shell"], Outcome]


@dataclass(slots=True)
class Shell:
    """One running script. `command` gives meaning to simple commands."""

    command: Command
    env: dict[str, str]
    errexit: bool = False
    exited: bool = False
    took_s: float = 0.0
    redirect: str = ""
    out: list[str] = field(default_factory=list)

    def run(self, script: str) -> int:
        """Run a script; the exit code of the last command. Raises ShellSyntax."""
        return self._list(_Tokens(tokenize(script)), stop=frozenset(), live=True)

    def expand(self, text: str) -> str:
        """Put values in place of `$NAME`, `${NAME}`, `${NAME:-word}` and `$(command)`."""
        while "$(" in text:
            before, rest = text.split("$(", 1)
            inner, after = _balanced(rest)
            text = before + self._substitute(inner) + after
        return _VARIABLE.sub(
            lambda m: self.env.get(m[1] or m[3]) or (m[2] if m[2] is not None else ""), text
        )

    def _substitute(self, script: str) -> str:
        child = Shell(self.command, self.env)
        child.run(script)
        self.took_s += child.took_s
        return "".join(child.out).strip()

    def _list(self, tokens: _Tokens, *, stop: frozenset[str], live: bool) -> int:
        code = 0
        while tokens.skip(_SEPARATORS) and tokens.peek() not in stop:
            run = live and not self.exited
            result = self._and_or(tokens, live=run)
            if run:
                code = result
        return code

    def _and_or(self, tokens: _Tokens, *, live: bool) -> int:
        code, guarded = self._pipeline(tokens, live=live)
        while tokens.peek() in {"&&", "||"}:
            wants_success = tokens.take() == "&&"
            tokens.skip(frozenset({"\n"}))
            runs = live and not self.exited and (code == 0) == wants_success
            nxt, guarded = self._pipeline(tokens, live=runs)
            if runs:
                code = nxt
            else:
                guarded = True
        if live and self.errexit and code and not guarded:
            self.exited = True
        return code

    def _pipeline(self, tokens: _Tokens, *, live: bool) -> tuple[int, bool]:
        negated = tokens.accept("!")
        code = self._compound(tokens, live=live)
        while tokens.accept("|"):
            code = self._filter(tokens, code, live=live)
        return (int(code == 0), True) if negated else (code, False)

    def _filter(self, tokens: _Tokens, code: int, *, live: bool) -> int:
        words = tokens.simple()
        if not live:
            return code
        before = self.out.pop() if self.out else ""
        if words[0] in {"cat", "tee"}:
            self.out.append(before)
            return code
        if words[0] == "grep":
            found = [line for line in before.splitlines() if words[-1].strip("'\"") in line]
            if not any(w.startswith("-") and "q" in w for w in words[1:]):
                self.out.append("".join(f"{line}\n" for line in found))
            return 0 if found else 1
        raise ShellSyntax(f"no pipe into {words[0]!r} here")

    def _compound(self, tokens: _Tokens, *, live: bool) -> int:
        if tokens.accept("if"):
            return self._if(tokens, live=live)
        if tokens.accept("{"):
            code = self._list(tokens, stop=frozenset({"}"}), live=live)
            tokens.expect("}")
            return code
        words = tokens.simple()
        if not words:
            raise ShellSyntax(f"unexpected {tokens.peek()!r}")
        return self._simple(words) if live else 0

    def _if(self, tokens: _Tokens, *, live: bool) -> int:
        kept, self.errexit = self.errexit, False
        test = self._list(tokens, stop=frozenset({"then"}), live=live)
        self.errexit = kept
        tokens.expect("then")
        ends = frozenset({"else", "elif", "fi"})
        code = self._list(tokens, stop=ends, live=live and test == 0)
        otherwise = live and test != 0
        if tokens.accept("elif"):
            nested = self._if(tokens, live=otherwise)
            return nested if otherwise else code
        if tokens.accept("else"):
            other = self._list(tokens, stop=frozenset({"fi"}), live=otherwise)
            code = other if otherwise else code
        tokens.expect("fi")
        return code

    def _simple(self, words: list[str]) -> int:
        while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
            name, value = words.pop(0).split("=", 1)
            self.env[name] = self.expand(_unquoted(value))
        self.redirect = next((w[1:] for w in words if w[0] == ">"), "")
        expanded = [w for raw in words if raw[0] not in "><" for w in _expanded(self, raw)]
        if not expanded:
            return 0
        result = self.command(expanded, self)
        self.took_s += result.took_s
        if result.out and not self.redirect:
            self.out.append(result.out)
        return result.code


def _expanded(shell: Shell, raw: str) -> list[str]:
    if raw.startswith("'") and raw.endswith("'"):
        return [raw[1:-1]]
    text = shell.expand(_unquoted(raw))
    return [text] if text or raw[:1] in {'"', "'"} else []


def _unquoted(raw: str) -> str:
    if "'" not in raw and '"' not in raw and "\\" not in raw:
        return raw
    if raw.startswith('"') and raw.endswith('"'):
        return raw[1:-1].replace('\\"', '"')
    return re.sub(r"['\"]", "", raw)


def _balanced(rest: str) -> tuple[str, str]:
    depth = 1
    for at, char in enumerate(rest):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return rest[:at], rest[at + 1 :]
    raise ShellSyntax("$( without )")


_TOKEN = re.compile(
    r"""\s*(?:(?P<op>&&|\|\||[0-9]?>>?&[0-9-]|&>|[0-9]?>>?|<|;|\||&|\n)"""
    r"""|(?P<word>(?:\$\((?:[^()]|\([^()]*\))*\)|"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s;&|<>"'\\])+))"""
)


def tokenize(script: str) -> list[str]:
    """Words (with their quotes) and operators; newlines count as `;`. Raises ShellSyntax."""
    script = re.sub(r"\\\n", " ", script)
    script = re.sub(r"(^|\s)#[^\n]*", r"\1", script)
    script = re.sub(r"\n+", " ; ", script.strip())
    tokens, at = [], 0
    while at < len(script):
        match = _TOKEN.match(script, at)
        if match is None:
            raise ShellSyntax(f"cannot read {script[at : at + 20]!r}")
        tokens.append(match["op"] or match["word"])
        at = match.end()
    return tokens


class _Tokens:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def accept(self, token: str) -> bool:
        if self.peek() == token:
            self._at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise ShellSyntax(f"expected {token!r}, not {self.peek()!r}")

    def skip(self, what: frozenset[str]) -> bool:
        while self.peek() in what:
            self._at += 1
        return bool(self.peek())

    def simple(self) -> list[str]:
        """The words of one simple command; redirections are kept as `>FILE` words."""
        words: list[str] = []
        while self.peek() and self.peek() not in _SEPARATORS | {"&&", "||", "|"}:
            if not words and self.peek() in _WORDS_OF_GRAMMAR:
                break
            word = self.take()
            if re.fullmatch(r"[0-9]?>>?|&>|<", word):
                target = self.take()
                if not word.startswith("2"):
                    words.append(("<" if word == "<" else ">") + target)
            elif not re.fullmatch(r"[0-9]?>>?&[0-9-]", word):
                words.append(word)
        return words


def script_of(argv: list[str]) -> tuple[str, bool] | None:
    """The script of `sh -c SCRIPT` (any shell) and whether it stops at errors; else None."""
    name = argv[0].rsplit("/", 1)[-1] if argv else ""
    if name not in {"sh", "bash", "dash", "ash"}:
        return None
    errexit = False
    for at, word in enumerate(argv[1:], start=1):
        errexit = errexit or bool(re.fullmatch(r"-[a-z]*e[a-z]*", word))
        if re.fullmatch(r"-[a-z]*c", word):
            return (argv[at + 1] if at + 1 < len(argv) else ""), errexit
    return None
