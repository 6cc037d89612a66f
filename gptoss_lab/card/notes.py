"""What no program can measure of the miniatures. Written by hand: after another training, read it again."""

INTRODUCTION = {
    "mini-oss": "gpt-oss's architecture in small, trained from nothing on the six corpora that come with the "
    "package.",
    "mini-gpt2": "GPT-2's architecture in small, to set beside mini-oss: the same tokenizer, the same six "
    "corpora. Without dropout: it went 0.7 (Python) to 2.5 times (arithmetic) over a corpus, and a rate of "
    "dropout would have been one thing more to search for.",
}

UNKNOWN = {  # what has not been established
    "mini-oss": (
        "That the recipe is a good one: one run, one seed; the learning rate was searched for in short runs "
        "alone, batch, balance and the length of the phases not at all.",
        "That anything here carries over to gpt-oss: a sink, a window or an expert of this model is an "
        "example to look at.",
        "Whether the second phase's small batches or the rounding move the balance term: it was not told "
        "apart.",
    ),
    "mini-gpt2": (
        "That the recipe is a good one: one run, one seed; the learning rate was searched for in short runs "
        "alone.",
        "What dropout, or a longer table of positions, would have done.",
    ),
}
