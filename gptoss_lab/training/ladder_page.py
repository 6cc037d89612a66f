"""The words of docs/ladder.md; `ladder_report` puts numbers and tables in their places."""

from __future__ import annotations

PAGE = """# The ladder: from GPT-2 to gpt-oss, one change at a time

    gptoss-lab train ladder --threads 1    # every run, resumable; --plan tells which wait, and their hours
    make ladder                            # this page, claims.md and notebooks 07 to 09, from the results

A run whose result the package has is not made again, unless results are looked for elsewhere:
`--results FOLDER`, and `--only 'yarn*'` for some models alone. Ctrl-C saves, and the same command goes on.
While there is a file `pause` in the queue's folder (`runs/ladder`) no step begins. The page alone:
`python -m gptoss_lab.training.ladder_report docs/ladder.md`.

{state}

In short, in bits per byte, negative where the loss falls. The steps up the ladder, {steps_short}

Undone at the ladder's top, positive where the change is missed, {undone_short}

“Beyond chance”: zero lies outside the 95 % interval of the difference; of twenty changes that do nothing one
would be called so. “By its pool alone”: by its own seeds it would not be, see below.

## What is compared

Every rung is a config that differs from the one below by one named change. So that the change is all
there is to it, the width of the MLP or of the experts is then chosen anew: on every rung a byte is
multiplied with as many parameters as on the first, within 3.5 % (a row of a table that is looked up is
not counted). From the experts on it is 3 % less than on the first: MXFP4 packs widths in steps of 32.

The first rung has 6 layers of width 64, 4 heads of 16 channels and an MLP of 256:

{changes}

All runs of one seed, but for two models beside the ladder, read the same bytes in the same order: {tokens:,}
of them in {steps:,} steps, nine tenths of the steps 8 windows of 256, the last tenth 2 windows of 1,024, with
YaRN and MXFP4's rounding on where the rung has them. AdamW, 100 steps of warm-up, then in a straight line to
zero; weight decay 0.1 on matrices, gradients clipped at 1; the balance term, which spreads bytes over
experts, weighs 0.01. The vocabulary is 256 bytes and an end. The corpora are the package's, each drawn from
as often as the others. (A seed decides
the weights at the start, the bytes and their order, and dropout.)

The learning rate is searched for at three anchors, with one seed each, on one grid that goes on to the next
rate where the best is at its end; a rung takes the rate of the last anchor at or below it, and the rungs
from the experts on that of the last rung. The best is told by the held-out windows that rungs are then judged
on, with seed 0: anchors have that small advantage. What a change would do at a rate of its own was not asked.

Bits per byte are means over six kinds of held-out text, in windows of 256 bytes, 64 of each kind; “at 1,024”
in windows of 1,024, 16 of each kind. (Such a window is a piece of text; a layer's window is how far back it
sees.) A level is the mean of all seeds that are in, a difference of those that both rows have, so that with
different numbers of seeds it is not the difference of the two levels. Differences are taken seed by seed on
the same windows; negative is better. “95 % over seeds” says where the mean over many seeds would lie;
with one seed there is none. “Over windows” is what the choice of windows alone leaves open for these very
models: it says nothing of another seed. Both together, √(seeds² + windows²), is what one ± alone means.

Two or three seeds tell little of how far seeds scatter. So models that are alike (with RoPE and six layers,
reading all of the text) are taken to scatter alike, and tell it together: of a run's bits, what is neither
its model's nor its seed's part is chance (least squares; a randomized block design). Dense models and those
with experts are apart, and so are rates, since a seed that is good for one kind may be bad for another:

{scatter}

Where a difference is beyond chance by its pool, and by its own seeds would not be, that wider interval is
told beside it. (Of two models that are one run until the long phase, the one with YaRN is in the pool.)

Any other two are judged by their own differences alone, with Student's t over their seeds: a dense model and
one with experts, two at different rates, rungs without RoPE, other sizes, little text read over and over; and
two models that are one and the same run until the long phase, with YaRN or MXFP4 and without, which share
most of their chance.

The last rung with seed 0 was made twice, and the program's training step had been rewritten in between, to
the same sums in another order. The two part in the fifth digit within 45 steps, and came to 2.2578 and
2.2329: so much is chance. The second is kept, because the same program made “untied embeddings” with that
seed, of which it must not differ in more than the rung; the rate that is taken would be the same with either.
The other runs of the grids are from before; “no dropout”, “RMSNorm” and “RoPE” with seed 0, made again, came
out as they are recorded.

A difference is called significant if it is larger than both together. Each comparison is judged by itself:
of twenty changes that do nothing, about one would be called significant, and this page judges {judged}. And
a change is judged at this size and after these {millions:.0f} million bytes, no more.

## Learning rates

{rates}

![Bits per byte over the peak rate, for the three anchors](pictures/ladder_rates.png)

{same_rate}

## The rungs

{rungs}

{rungs_said}

![Every rung's level, and its difference to the row before](pictures/ladder_differences.png)

(In windows of 256 YaRN extends nothing. What it buys there is most likely what the rung “RoPE” loses in the
long phase: of all rungs only that one has spikes when windows become longer, below. If so, a part of the step
at RoPE is lost again, and told as YaRN's.)

By domain, bits per byte, and what each row has less than the one before (± both intervals together):

{domains}

{domains_less}

By position, nats a byte, in windows of 1,024 (means over 16 windows of each kind, and over seeds).
{positions_range}

{positions}

In windows of 2,048, longer than any that was trained on. These are 4 of each kind and other text, so that
their first column, and not the table above, is what the others must be compared with. {beyond_range}

{beyond}

![Loss by position, for eight of the rungs and the table of bigrams](pictures/ladder_positions.png)

Before the long phase, when no window had been longer than 256: the same weights with plain RoPE and with
YaRN, neither of which they had met beyond 256 (a table of positions has no rows there that were trained). Up
to then a rung with YaRN and the same without it are one and the same run, seed by seed. Means over 4 windows
of each kind, and over the seeds that are in. {untaught_range}

{untaught}

## Why the first rungs stay where they are

At this budget GPT-2's rung, which has a table of positions, stops at a loss that a rung with RoPE passes
early on. A likely reason is that it has hardly learned to look one byte back. Were it so, it and the rungs
between it and RoPE would know little more than which byte follows which, their loss would not fall along
the window, and the order of earlier bytes would matter little to them.

**Do they know more than a table of bigrams?** This is a table of which byte follows which, made of all the
training text of the domain that it is then asked about. It sees one byte, and is told the kind of text.
Beside it the rungs, in bits per byte (lines of arithmetic have few forms, which a table of bigrams does not
know):

{bigrams}

{bigrams_said}

**Does their loss fall along the window?** The text at one place is easier than that at another, and the
table of bigrams, which sees one byte wherever it stands, tells by how much. Whoever makes use of what stands
further back falls further. Nats a byte in windows of 1,024, from the ninth byte on (the first ones tell the
kind of text):

{falls}

{falls_said}

**Do they mind when earlier bytes are shuffled?** {lookback}

To look one byte back, a head with learned positions must find out for every place which row of the table
belongs to the place before: hundreds of separate pairs. With RoPE a distance is one and the same rotation
everywhere, so that what is learned at one place holds at all. How much longer a table of positions would
take is not measured here; that it can be learned is no question, GPT-2 itself has such heads. If this is the
reason, the step at RoPE says how fast a position is learned, and not what RoPE would be worth at the end of a
long training; and changes below it are judged on models that make little of the order of what they attend to:
dropout and the norm may matter differently above. (Hence “one left out”.)

![Training loss of eight of the rungs, and the level of the table of bigrams](pictures/ladder_curves.png)

## How training went

Spikes: steps whose loss lay above the median of the fifty before by more than six times their median absolute
deviation; apart from them, “at the switch”, those in the 25 steps after the windows became longer. (All rungs
read the same batches: spikes at the same step in several are one odd batch.) Values: of the residual, on
held-out text.{values_by_rate} Means over seeds. {training_range}

{training}

![Spikes of every run, and the largest value of the residual by layer](pictures/ladder_stability.png)

## The router

The balance term over the last hundred steps (1: even); how even the shares of the experts are over
held-out text (their entropy, over that of an even spread); how many bits an expert's number tells of the
domain (at most 2.58). A layer that would tell the domain is one whose experts specialise. Choices that had
nothing to do with it would show 0.001 to 0.002 bits if bytes were independent, and more since those of a
window are alike; no shuffled labels were measured here (the model card has them, for mini-oss).
{router_range}

{router}

![Evenness and bits about the domain, layer by layer](pictures/ladder_router.png)

## One left out

The order of the rungs matters, so each change is also undone at the top. (The top is here the rung
before MXFP4, whose steps of 32 are too coarse to match. Without RoPE there is no YaRN to keep: two changes
are undone at once.) A positive difference says that the change is missed; “the whole” is the top. “Tied
again” is the rung “experts” itself, so that its row is the step at “untied embeddings” turned round, with two
of its seeds, and no second piece of evidence. Two seeds, and three where a claim of
claims.md asks. All are trained at the top's rate, but for the model without experts, which takes the dense
anchor's. What learned positions would do at another rate was not asked.

{left_out}

{left_out_said}

![Each change left out of the top, with both intervals](pictures/ladder_left_out.png)

## Other sizes, other numbers of experts, equal totals

The first and the last rung with 2 and 12 layers. K of E experts, with a token's work kept. And the
smaller side of a change that makes a model larger or smaller in all, widened until both have as many
parameters; the change is then what is left between them. (Untied embeddings add 16,448 parameters too, 1.7 %;
for them there is no second matching.) All take the rate of their kind of model with 6 layers and 8 experts,
and have two seeds.

{others}

{others_said}

![Bits per byte over FLOP, for three sizes](pictures/ladder_costs.png)

![Bits per byte over parameters in all, for other numbers of experts](pictures/ladder_experts.png)

## Beside the ladder

Three questions that no rung answers. How much of the step at “experts” is the rate: the same rung at the rate
of the one below it. Whether Swish does as well as GELU, both without a gate: the last rung with GELU, with
Swish in its place. And what dropout is worth where text is read over and over: “{top}” without and with
GPT-2's dropout, each of which reads the first {repeated:,} bytes of every corpus and nothing else, each byte
{times} times on average.

{asides}

{asides_said}

And two small models in the shapes of gpt-oss-20b and Qwen3-30B-A3B (numbers of experts and of heads as
published; depth, width and the way to long texts alike; notebook 09 shows them). Both have as many
parameters at work on a byte as the ladder, and Qwen3's has more in all. At 0.016 three seeds, at 0.008 one:

{shapes}

{shapes_said}

## What a rung costs

From the config alone. “Multiplied”: the parameters that a byte is multiplied with. FLOP with 1,024 bytes in
view; weight bytes that are read to decode one byte, as they would be stored (bfloat16, and MXFP4 on the last
rung); the cache in bfloat16 bytes. GPT-2's table of positions ends at 1,024.

{costs}

Measured side by side, every rung in turn in each of {rounds} rounds, with {threads} thread
(`python benchmarks/ladder_speed.py`): a step of training as a run has them, and decoding 64 bytes after 64
with float32 weights. Ratios are medians over the rounds; in brackets the middle half of the rounds, which is
how far rounds lie apart and no confidence interval. {noise}
At this size a step is many small operations, and what costs time is their number more than their size.
(Dropout acts on attention's pattern, which then must be made; the rungs without it are trained with a fused
form of attention.)

{speed}

## What a result holds

One JSON file a run, in `gptoss_lab/assets/results/ladder`, written by the queue and never by hand.
`curve`: the training loss, means of `steps` steps, nats a byte. `windows` and `bits_per_byte`: held-out
text in windows of 256 (`near`) and 1,024 bytes (`far`). `nats_by_position`: the same by position, and
`beyond` in windows of 2,048, longer than any that was trained on, where there is no table of positions.
`untaught`: by position before the long windows began, with plain RoPE and with YaRN. `activations`: the
residual after each layer, its largest value and its root mean square. `spikes`: the steps. `balance`: the
balance term over the last hundred steps. `router`: for each layer how even the experts' shares are, and how
many bits an expert's number tells of the domain. `seconds`: wall time of the training, on a machine that did
other things too; it is no benchmark. Beside the folder: `ladder_speed.json`, and `ladder_lookback.json` from
`python -m gptoss_lab.training.lookback`.
"""


MEASURE = "`python -m gptoss_lab.training.lookback gpt2 no-dropout rmsnorm rope`"
SHUFFLED = """The queue keeps no weights, so a rung was trained again, alike, with one seed
({rungs}), and asked for a byte (bits, over
held-out windows) after all that stood before it; after the same with every byte but the last in a random
order; and after the last byte alone. Last column: of all heads, the largest share of attention that goes to
the byte just before the query's own, on average; a head that looks at all bytes alike gives it {even:.1f} %.
Shuffling costs whoever makes something of places or of nearness, and nobody else. (Where a level is not the
recorded one, that run is from before the training step was rewritten.)"""
ORDER = """In five kinds of text the order of earlier bytes is next to nothing to GPT-2's rung, and none of
its heads looks one byte back much more than a head that looks anywhere. The two rungs above it make a little
of the order, and much of it in arithmetic, where no dropout gained most. With RoPE all kinds of text hang on
the order, and a head gives half of its attention to the byte before."""
