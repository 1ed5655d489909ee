"""The code in documents."""

from __future__ import annotations

import re
import shlex


def shell_blocks(text: str) -> list[list[str]]:
    """The commands in the shell blocks of a document, in order, split as a shell does."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [command for command in commands if command]


def shell_lines(text: str) -> list[list[str]]:
    """The commands of a document: those in shell blocks, and `fsod …` in code quotes."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    quoted = [code for code in re.findall(r"`([^`]*)`", prose) if code.startswith(("fsod ", "python "))]
    return [*shell_blocks(text), *map(shlex.split, quoted)]


def section(text: str, title: str) -> str:
    """What stands under a heading of the second level."""
    _, _, after = text.partition(f"\n## {title}\n")
    return after.partition("\n## ")[0]


def python_code(text: str) -> str:
    """The Python blocks of a document, as one program."""
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
