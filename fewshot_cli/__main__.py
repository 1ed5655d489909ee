"""`python -m fewshot_cli` is `fsod`."""

from __future__ import annotations

from fewshot_cli.cli.app import main

if __name__ == "__main__":
    main()
