"""`python -m gptoss_lab …` is the command `gptoss-lab …`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
