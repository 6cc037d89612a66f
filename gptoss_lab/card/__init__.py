"""The model card: what the shipped miniatures are, how well they do, and what can be taught with them.

    python -m gptoss_lab.card docs/models.md                      # the page, from the recorded numbers
    python -m gptoss_lab.card docs/models.md --measure            # measures the miniatures anew first
    python -m gptoss_lab.card docs/models.md --measure mini-oss   # one of them

`losses`, `attending`, `routed` and `writing` measure; `measured` gathers that in one JSON file for each model
(`recorded("mini-oss")` reads it); `words` and the files `of_…` say it, `pictures` draws it, `page` writes it
out. No sentence of the page with a number in it, or that depends on one, is written by hand.
"""
