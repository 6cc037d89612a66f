"""`python -m gptoss_lab.study.claims docs/claims.md`: write the page of the claims on trial."""

from .page import main

if __name__ == "__main__":
    main()
