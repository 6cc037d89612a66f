"""The benchmark behind `gptoss-lab bench`: how fast a model runs here, beside others and beside the machine.

    machine    what the machine itself does: bytes read from memory, products
    groups     a process held to a number of bytes by the kernel, where it lets us
    side       one side of a comparison, a process of its own: `ours`, `llama`, `reference`
    blocks     a side started, asked and ended; what its tokens took, its peak, what it read from disk
    parts      what is measured one after another, and about how long each part takes
    running    the parts run, each written down when it is done
    report     the table, and `docs/performance.md`

No figure is a promise for another machine: what is compared runs side by side, in turn.
"""
