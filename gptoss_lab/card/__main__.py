"""`python -m gptoss_lab.card docs/models.md`: write the page of the miniatures, and its pictures."""

from .page import main

if __name__ == "__main__":
    main()
