"""The claims on trial: what is often said of GPT-2, gpt-oss and their parts, beside what comes out here.

    python -m gptoss_lab.study.claims docs/claims.md             # the page, from the recorded numbers
    python -m gptoss_lab.study.claims docs/claims.md --measure   # measures the miniatures anew first

`formulas` holds what follows from configs and definitions, `normalising`, `routing` and `timing` what is
measured, `measured` gathers that in one JSON file, `page` writes both out with a verdict each.
"""
