"""Blocks of exercises: name -> (title, statement, stub, given, hint, solution, remark)."""
B = {}
def add(name, title, statement, stub, hint, solution, remark="", given=""):
    B[name] = (title, statement.strip(), stub.strip("\n"), given, hint.strip(), solution.strip("\n"), remark.strip())

# ---- 00
add("share of the output peak", "How much of the spike is this weight?",
 "The output's peak is a sum over 1,536 inputs. Which share of it does the product of the candidate's weight and the input's peak explain? The three numbers are in `candidate`.",
 "share = ...", "`candidate.weight`, `candidate.input.value`, `candidate.output.value`.",
 "share = candidate.weight * candidate.input.value / candidate.output.value",
 "One product outweighs the 1,535 others together.",
 given="candidate.weight, candidate.input.value, candidate.output.value")
add("rank in its matrix", "Is it just the largest weight?",
 "How many entries of the candidate's matrix `weight` are larger in magnitude than the candidate, `weight[row, column]`?",
 "larger = ...", "A comparison of tensors gives True and False; `.sum()` counts the True ones.",
 "larger = int((weight.abs() > weight[row, column].abs()).sum())",
 "Section 4 removes the larger ones, too.",
 given="weight.detach(), row, column")
add("the runner-up", "The runner-up",
 "`candidates(spikes, THRESHOLD)` lists several spikes. Apart from the super weight itself, whose weight is worth most? Give its coordinate `(layer, out, in)`.",
 "runner_up = ...", "`ratio_without` of section 4 takes a list of coordinates; `max` takes a `key`.",
 """others = [spike.coordinate for spike in candidates(spikes, THRESHOLD)[1:]]
runner_up = max(others, key=lambda coordinate: ratio_without([coordinate]))""",
 "It need not be the second tallest. The order of the spikes says little about the order of the damage, so measure.",
 given="{one.coordinate: ratio_without([one.coordinate]) for one in candidates(spikes, THRESHOLD)}")
add("perplexity by hand", "Perplexity by hand",
 "Write `perplexity_of(logits, ids)`: the perplexity of a text `ids` (T,) of which a model that has read it gives `logits` (T, V). Nothing predicts the first token.",
 "def perplexity_of(logits, ids):\n    return None",
 "`log_softmax(dim=-1)` gives log-probabilities; `gather` picks one of each row.",
 """def perplexity_of(logits, ids):
    log_p = logits[:-1].log_softmax(dim=-1)  # what is said of tokens 1, 2, ...
    picked = log_p.gather(1, ids[1:, None])
    return (-picked.mean()).exp().item()""")
# ---- 01
add("the causal mask", "The mask",
 "Write `mask(T)`: a (T, T) tensor of booleans, True where the query of a row may look at the key of a column.",
 "def mask(T):\n    return None", "`.tril()` keeps the lower triangle.",
 "def mask(T):\n    return torch.ones(T, T, dtype=torch.bool).tril()")
add("inputs and targets", "Cut a text into windows",
 "Write `cut(ids, T)`: inputs and targets, two tensors (N, T), of as many consecutive windows as `ids` has; each begins where the one before it ends. A rest that fills no window is left out.",
 "def cut(ids, T):\n    return None", "The last target is one token behind the last input, so `N = (len(ids) - 1) // T`.",
 """def cut(ids, T):
    N = (len(ids) - 1) // T
    rows = [ids[i * T : i * T + T + 1] for i in range(N)]  # T + 1 tokens each
    return torch.stack([row[:-1] for row in rows]), torch.stack([row[1:] for row in rows])""")
add("parameters of a block", "Count the parameters",
 "Without biases a block holds `c_attn` (C to 3C), `attn.c_proj` (C to C), `c_fc` (C to 4C), `mlp.c_proj` (4C to C) and two norms of C. Write `block_parameters(C)`.",
 "def block_parameters(C):\n    return None", "The four matrices add up to 12 C².",
 "def block_parameters(C):\n    return 12 * C**2 + 2 * C")
add("from unigram to trained", "What a nat is worth",
 "Perplexity is $e^{\\text{loss}}$. Write `shrunk(before, after)`: by which factor does the number of tokens that a model hesitates between shrink, when its loss falls from `before` to `after`?",
 "def shrunk(before, after):\n    return None", "$e^{a} / e^{b} = e^{a - b}$.",
 "def shrunk(before, after):\n    return math.exp(before - after)", "Try `shrunk(unigram, final)`.")
add("a causal head", "Build a head",
 "Write `head(x, w_q, w_k, w_v)`: one causal head, from x (T, C) to (T, D), with three matrices (D, C). The weights of a row sum to one.",
 "def head(x, w_q, w_k, w_v):\n    return None",
 "`x @ w.T` is (T, D). Products over the square root of D; -inf above the diagonal; a softmax over keys; the mean of the values.",
 """def head(x, w_q, w_k, w_v):
    q, k, v = x @ w_q.T, x @ w_k.T, x @ w_v.T  # (T, D) each
    products = q @ k.T / math.sqrt(q.shape[-1])  # (T, T)
    hidden = torch.ones_like(products, dtype=torch.bool).triu(1)
    return products.masked_fill(hidden, -math.inf).softmax(dim=-1) @ v""")
# ---- 02
add("a constant for n keys", "A constant instead",
 "A needle stands `gap` above its `n - 1` equal rivals. Write `constant_for(n, gap)`: the factor on the logits that gives the needle a weight of 0.9.",
 "def constant_for(n, gap):\n    return None", "$(n-1)\\,e^{-c \\cdot gap} = 1/9$.",
 "def constant_for(n, gap):\n    return math.log(9 * (n - 1)) / gap",
 "`needle_weight(1.5, 10**6, constant_for(2048, 1.5))`: sized for two thousand keys, it has a fiftieth left among a million.")
add("scaled queries", "Scale the queries",
 "Write `ssmax_queries(q, s)` for the queries q (T, D) of one head: row $i$, counted from 0, sees $i + 1$ keys.",
 "def ssmax_queries(q, s):\n    return None", "`torch.arange(1, len(q) + 1)` counts them; a trailing axis of one multiplies all D channels.",
 """def ssmax_queries(q, s):
    n = torch.arange(1, len(q) + 1, dtype=q.dtype)
    return q * (s * n.log())[:, None]""")
add("visible keys", "Count with a cache",
 "`past` tokens are in the cache and `T` new ones arrive. Write `visible(T, past)`: the list of $n$ for the new queries.",
 "def visible(T, past):\n    return None", "With an empty cache it is 1, 2, 3.",
 "def visible(T, past):\n    return [past + i + 1 for i in range(T)]")
add("the other notation", "The other notation",
 "Some write $\\log_L n$ instead: the factor is 1 at the trained length $L$. Write `s_for(L)`: which $s$ in $s \\log n$ is that?",
 "def s_for(L):\n    return None", "$\\log_L n = \\log n / \\log L$.",
 "def s_for(L):\n    return 1 / math.log(L)")
add("with a cache and padding", "SSMax with a cache and padding",
 "Write `attend(q, k, v, s, padding)`: SSMax of one head with T new queries (T, D) at the end of N keys and values (N, D). The first `padding` keys are no tokens: nobody sees or counts them. Products are divided by the square root of D, as ever.",
 "def attend(q, k, v, s, padding):\n    return None",
 "New query i stands at position `N - T + i`; it sees the keys from `padding` to its own.",
 """def attend(q, k, v, s, padding):
    at = torch.arange(len(k) - len(q), len(k))[:, None]  # (T, 1): where the queries stand
    key = torch.arange(len(k))  # (N,)
    seen = (key <= at) & (key >= padding)  # (T, N)
    n = seen.sum(dim=-1, keepdim=True)  # counted, row by row
    products = (q * s * n.log()) @ k.T / math.sqrt(q.shape[-1])
    return products.masked_fill(~seen, -math.inf).softmax(dim=-1) @ v""",
 "Counting what the mask lets through is right with a cache, padding and packed documents alike.")
# ---- 03
add("what one layer tells apart", "How big is the bag?",
 "A one-layer model knows the last token and how often each letter occurs before it. Write `bag_count(V, T)`: how many different predictions can it make at most for sequences of `T` tokens over `V` letters?",
 "def bag_count(V, T):\n    return None", "Bags of k letters out of V: $\\binom{k + V - 1}{V - 1}$, and here k = T − 1. `math.comb(n, k)` computes it.",
 """def bag_count(V, T):
    from math import comb

    return V * comb(T - 1 + V - 1, V - 1)""")
add("prefix means", "Uniform attention is a running mean",
 "Write `running_means(v)`: for values v (T, D), row i is the mean of rows 0 to i. Causal attention whose queries are all zero computes just that.",
 "def running_means(v):\n    return None", "`v.cumsum(dim=0)`, and the counts as a column.",
 "def running_means(v):\n    return v.cumsum(dim=0) / torch.arange(1, len(v) + 1)[:, None]")
add("the weight of BOS", "Counting with a BOS token",
 "A BOS token, then `m` times the same letter. A head gives BOS a logit that is `gap` higher than that of the letter. Write `bos_weight(m, gap)`: which weight does BOS get? A trained head can choose the gap, and with it the range of counts that the weight tells apart best.",
 "def bos_weight(m, gap):\n    return None", "$e^{\\text{gap}}$ for BOS, $e^0$ for each of the m letters.",
 "def bos_weight(m, gap):\n    return np.exp(gap) / (np.exp(gap) + m)")
add("always the middle", "Knowing nothing",
 "A useless probe does not come out at 100 %. Write `middle_error(T)` for T positions 0 to T − 1: the mean error of always answering the middle, $(T - 1)/2$, as a share of the mean distance of two random positions (which may be the same).",
 "def middle_error(T):\n    return None", "With `i = torch.arange(T).double()`: `(i - i.mean()).abs().mean()` and `(i[:, None] - i).abs().mean()`.",
 """def middle_error(T):
    i = torch.arange(T).double()
    return ((i - i.mean()).abs().mean() / (i[:, None] - i).abs().mean()).item()""",
 "Three quarters, for long texts.")
add("an order detector", "Build an order detector",
 "Two layers of uniform causal attention, no positions, no residual stream: the first gives each position the mean of the tokens that it sees, the second the mean of what the first gives. Write `detector(tokens)` for tokens (T,), numbers: the second layer's state at the last position. Then compare `[1, 1, 0, 0]` with `[0, 0, 1, 1]`.",
 "def detector(tokens):\n    return None", "A running mean of a running mean; its last entry.",
 """def detector(tokens):
    n = torch.arange(1, len(tokens) + 1)
    first = tokens.cumsum(0) / n  # (T,)
    return first.mean()""",
 "The two have the same tokens and different states: early tokens are in more of the means.")
# ---- 04
add("size a constant", "Size a constant",
 "A softmax model was trained on contexts of `L` tokens. Write `constant_at(n, L)`: which constant factor does log n, swapped in so that it is 1 at L, come to at n keys?",
 "def constant_at(n, L):\n    return None", "Log n, in units of log L.",
 "def constant_at(n, L):\n    return np.log(n) / np.log(L)")
add("a difference, or not", "A difference, or not?",
 "Write `differs(a, b)`: whether two lists of per-seed values, paired by seed, differ at the 95 % level. `scipy.stats.ttest_rel` or the lab's `paired_difference` may help.",
 "def differs(a, b):\n    return None", "Seeds that are lucky are lucky for both models: subtract seed by seed first.",
 """def differs(a, b):
    from scipy.stats import ttest_rel

    return bool(ttest_rel(a, b).pvalue < 0.05)""")
add("dilution by hand", "Dilution by hand",
 "A head gives its needle a logit 7 above all other keys, whose logits are equal. Write `weight(n, factor)`: its weight on the needle among n keys when all logits are multiplied by `factor`.",
 "def weight(n, factor):\n    return None", "exp(7f) / (exp(7f) + n − 1), and dividing by exp(7f) keeps it from overflowing.",
 "def weight(n, factor):\n    return 1 / (1 + (n - 1) * np.exp(-7 * factor))")
add("entropy, held against its ceiling", "Entropy, held against its ceiling",
 "Write `normalized(weights)` for a causal map (T, T) of attention weights: $H / \\log n$ of each row, where row i sees i + 1 keys. A row that sees one key has entropy 0.",
 "def normalized(weights):\n    return None", "`torch.special.entr` is $-p \\log p$, and 0 where p is 0.",
 """def normalized(weights):
    H = torch.special.entr(weights).sum(dim=-1)
    H[1:] /= torch.arange(2, len(weights) + 1).log()
    return H""")
add("slower rotations", "Slower rotations",
 "RoPE turns pair i of D/2 pairs by position / base$^{2i/D}$. Write `turns(position, D, base)`: the list of these angles. What does a base four times as large change for the first pair, and for the last?",
 "def turns(position, D, base):\n    return None", "i counts from 0.",
 "def turns(position, D, base):\n    return [position * base ** (-2 * i / D) for i in range(D // 2)]",
 "The first pair turns as before, the last nearly four times more slowly: positions beyond the trained length look like ones within it to the slow pairs.")
# ---- 05
add("the planted weight", "Find a planted weight",
 "`planted` is a small random decoder in which one weight of one down projection was made large, and its input channel made to fire. Which one? Give `(layer, out, in)`. Its activations are all small, so the bar of 50 is no help.",
 "coordinate = ...", "`max` takes a `key`; a `Spike` has `.ratio` and `.coordinate`.",
 "coordinate = max(find_spikes(planted, [1, 2, 3]), key=lambda spike: spike.ratio).coordinate",
 given="secret")
add("the verdict", "Super, harmful or inert?",
 "Write `verdict(candidate, random, largest)`: the word for a weight without which the perplexity is `candidate` times as high, while random controls have `random` and large ones `largest`. It must be worth *more* than both; then at least twice is super, at least 1 % harmful.",
 "def verdict(candidate, random, largest):\n    return None", "First the controls, then the thresholds.",
 """def verdict(candidate, random, largest):
    if candidate > random and candidate > largest:
        if candidate >= 2:
            return "super"
        if candidate >= 1.01:
            return "harmful"
    return "inert\"""")
add("times the perplexity", "One number for several texts",
 "Write `times(with_it, without)`: how many times the perplexity of a model is without a weight, given the losses (nats per token) of the same texts with it and without it. No text is to outvote the others: the mean is geometric.",
 "def times(with_it, without):\n    return None", "The mean of the differences of the losses, and then its exponential.",
 """def times(with_it, without):
    differences = torch.tensor(without) - torch.tensor(with_it)
    return differences.mean().exp().item()""")
add("a super-weight finder", "Build the finder",
 "Write `find(x, y, W)` for one down projection: inputs x (T, in), outputs y (T, out), weights W (out, in). Where is the output with the largest magnitude, and which weight adds most to it? Return `(token, out, in, share)`, with the share of that output which the weight's product makes.",
 "def find(x, y, W):\n    return None", "`x[token] * W[out]` are the parts of one output: they sum to it.",
 """def find(x, y, W):
    token, out = map(int, (y.abs() == y.abs().max()).nonzero()[0])
    shares = x[token] * W[out] / y[token, out]  # they sum to 1
    into = int(shares.argmax())
    return token, out, into, shares[into].item()""")
# ---- 06
add("the restore", "Put the activation back",
 "A super weight is zero. Write `restored(x, y, weight, out, into)`: the layer's output y (T, out) with what the weight would have added at *one* token, the one where its input, x (T, in) at channel `into`, has the largest magnitude. y itself is not to change.",
 "def restored(x, y, weight, out, into):\n    return None", "`x[:, into].abs().argmax()` is the token.",
 """def restored(x, y, weight, out, into):
    signal = x[:, into]  # (T,)
    token = signal.abs().argmax()
    y = y.clone()
    y[token, out] += signal[token] * weight
    return y""",
 "`restored_activations` is this as a context, for batches, caches and several weights at once.")
add("more than the product", "More than the product",
 "Two removals cost `a` and `b` times the perplexity, and both together `both` times. Write `interaction(a, b, both)`: by how many nats do they cost more together than two that have nothing to do with each other?",
 "def interaction(a, b, both):\n    return None", "Independent multiples multiply; their logarithms add.",
 "def interaction(a, b, both):\n    a, b, both = torch.tensor([a, b, both]).log().tolist()\n    return both - a - b")
add("which channel outweighs the others", "By how much does a channel outweigh the others?",
 "Write `outweighs(state, channel)` for a state (C,): the magnitude of its entry at `channel` over the length of the vector of all other entries.",
 "def outweighs(state, channel):\n    return None", "A copy with a zero at the channel has the others' length.",
 """def outweighs(state, channel):
    others = state.clone()
    others[channel] = 0
    return (state[channel].abs() / others.norm()).item()""")
add("by how many degrees", "By how many degrees does a state turn?",
 "Write `degrees(a, b)`: the angle between two states (C,).",
 "def degrees(a, b):\n    return None", "`torch.nn.functional.normalize`, a product, `acos`, `torch.rad2deg`.",
 """def degrees(a, b):
    a, b = a.double() / a.double().norm(), b.double() / b.double().norm()
    return torch.rad2deg((a @ b).clamp(-1, 1).acos()).item()""")
add("a set that works together", "Build the search for a set",
 "Write `search_set(names, harm, size)`: a set grown greedily. Each step adds the weight that costs most *together with* those chosen already; `harm` takes a tuple of names and returns what removing them costs. Return the tuple in the order of the choice.",
 "def search_set(names, harm, size):\n    return None", "Start with an empty tuple; `max` takes a `key`.",
 """def search_set(names, harm, size):
    chosen, left = (), list(names)
    while len(chosen) < size:
        costs = {name: harm((*chosen, name)) for name in left}
        best = max(costs, key=costs.get)
        chosen = (*chosen, best)
        left.remove(best)
    return chosen""")
# ---- 07
add("two of four", "Two of four",
 "Some hardware multiplies faster where of every four consecutive inputs of a row two are zero. Write `two_of_four(W)` by magnitude, for W (out, in): True at the two smallest of every four.",
 "def two_of_four(W):\n    return None", "`reshape(-1, 4)`, sort each row, scatter True at the first two.",
 """def two_of_four(W):
    order = W.abs().reshape(-1, 4).argsort(dim=1, stable=True)
    mask = torch.zeros(order.shape, dtype=torch.bool)
    return mask.scatter_(1, order[:, :2], True).view(W.shape)""",
 "The pattern costs more than a free choice of half: see `wanda 2:4`.")
add("how many go before it", "The last one standing",
 "Wanda removes weights row by row, the lowest scores first. Write `go_before(scores, row, column)`: how many weights of its row go before the one at that place? Then try it on the super weight: `go_before(scores, *FOUR[0][1:])`.",
 "def go_before(scores, row, column):\n    return None", "Count the smaller scores of the row.",
 "def go_before(scores, row, column):\n    return int((scores[row] < scores[row, column]).sum())",
 "All the others go before the super weight. Not even Wanda at 99 % would take it.")
add("Wanda from its formula", "Build Wanda",
 "Write `wanda(W, X, share)` for weights W (out, in) and inputs X (T, in): True at what is removed, in each row the `share` of its weights with the lowest score $|W_{ij}| \\cdot \\lVert X_j \\rVert_2$ (rounded down). No loop is needed.",
 "def wanda(W, X, share):\n    return None", "`X.norm(dim=0)` has one number for each input channel; of equal scores the first go (`stable=True`).",
 """def wanda(W, X, share):
    scores = W.abs() * X.norm(dim=0)
    order = scores.argsort(dim=1, stable=True)[:, : int(share * W.shape[1])]
    return torch.zeros_like(W, dtype=torch.bool).scatter_(1, order, True)""")
add("a threshold for a share", "A threshold for a share",
 "Write `cut_at(x, share)`: the size below which about a `share` of the entries of x (T, in) lies. Sort the magnitudes of all tokens together and take the one that stands at that share of the way from the first to the last, to the nearest.",
 "def cut_at(x, share):\n    return None", "`round(share * (count - 1))` is its index.",
 """def cut_at(x, share):
    sizes = x.abs().flatten().sort().values
    return sizes[round(share * (len(sizes) - 1))].item()""")
add("within a budget", "Within a budget",
 "Write `largest_share(cost, budget)`: of the shares 0, 0.05, 0.10, ... 0.95 the largest that costs no more than `budget`; `cost(share)` rises with the share. Then ask what the down projections' inputs allow within 5 % of perplexity, with the cell below.",
 "def largest_share(cost, budget):\n    return None", "A `while` loop that looks one step ahead.",
 """def largest_share(cost, budget):
    step = 0
    while step < 19 and cost(0.05 * (step + 1)) <= budget:
        step += 1
    return 0.05 * step""")
# ---- 08
add("cut channels out", "Cut channels out",
 "Write `cut_out(gate, up, down, keep)` for an MLP of I channels: gate and up (I, C), down (C, I), and `keep` (I,), True where a channel stays. Return the three smaller matrices.",
 "def cut_out(gate, up, down, keep):\n    return None", "A tensor of booleans is an index.",
 "def cut_out(gate, up, down, keep):\n    return gate[keep], up[keep], down[:, keep]")
add("small gates closed", "The gate by hand",
 "CATS looks at the gate: where $|\\mathrm{silu}(g_j)|$ is below a threshold, channel $j$ is dropped. Write `closed(hidden, threshold)`: what the down projection is given, $\\mathrm{silu}(g) \\cdot u$ with the small gates closed, of `hidden` (T, 2 I): first the gates, then what they are multiplied by.",
 "def closed(hidden, threshold):\n    return None", "`hidden.chunk(2, dim=-1)`, and a comparison that is multiplied in.",
 """def closed(hidden, threshold):
    gate, up = hidden.chunk(2, dim=-1)
    opened = torch.nn.functional.silu(gate)
    return opened * (opened.abs() >= threshold) * up""")
add("bytes of a token", "What a token reads",
 "Write `bytes_read(shapes, bits, group)`: the bytes of matrices of these shapes, a list of (rows, columns), in so many bits a weight, with a scale of 16 bits for each group of `group` weights.",
 "def bytes_read(shapes, bits, group):\n    return None", "Eight bits are a byte.",
 """def bytes_read(shapes, bits, group):
    weights = sum(rows * columns for rows, columns in shapes)
    return weights * bits / 8 + weights / group * 2""")
add("fitted anew", "Build the fit",
 "Write `fit(X, Y, W, prior)`: the matrix $W'$ (out, in) with the least $\\lVert Y - X W'^\\top \\rVert^2 + prior \\cdot \\lVert W' - W \\rVert^2$, for inputs X (T, in), wanted outputs Y (T, out), and the weights W (out, in) as they were.",
 "def fit(X, Y, W, prior):\n    return None", "Set the derivative to zero, and use `torch.linalg.solve`.",
 """def fit(X, Y, W, prior):
    pull = prior * torch.eye(X.shape[1], dtype=X.dtype)
    return torch.linalg.solve(X.T @ X + pull, X.T @ Y + pull @ W.T).T""")
# ---- 09
add("what a block costs", "What a block costs",
 "Asymmetric rounding stores `bits` per weight, and 16 bits each for scale and `low` per block. Write `bits_per_weight(bits, size)`. Which is the smallest block, a power of two, that stays within 4.1 bits in INT4?",
 "def bits_per_weight(bits, size):\n    return None", "A block shares its 32 bits.",
 "def bits_per_weight(bits, size):\n    return bits + 32 / size",
 "512: 32 / 256 = 0.125 is too much.")
add("percentile clipping", "Percentile clipping",
 "Write `percentile(blocks, p)`: for each block (a row of `blocks`), the smallest of its own magnitudes that at least p % of its weights do not exceed, as a tensor (n, 1).",
 "def percentile(blocks, p):\n    return None", "`sort(dim=1).values[:, [rank - 1]]` keeps the second dimension; `math.ceil` rounds up.",
 """def percentile(blocks, p):
    import math

    rank = math.ceil(blocks.shape[1] * p / 100)
    return blocks.abs().sort(dim=1).values[:, [rank - 1]]""")
add("a safe z", "A safe z",
 "Big blocks with z = 9 clip the super weight. Write `safe_z(block, weight)`: the smallest whole z, at least 0, whose limit, mean + z · std of the *magnitudes* in the block, leaves the weight as it is. Then try it on `own` and `W[out, into]`.",
 "def safe_z(block, weight):\n    return None", "Solve for z and round up.",
 """def safe_z(block, weight):
    sizes = block.abs()
    exact = (abs(weight) - sizes.mean()) / sizes.std()
    return max(0, int(exact.ceil()))""",
 "A z that is safe hardly clips anything else either: hence the recipe, which clips the super weight and puts it back.")
add("the super activation spared", "Spare the super activation",
 "Write `spared(X, channel)` for inputs X (T, in): 8 bits per token, with the channel replaced by each token's median before rounding, and put back in full precision after it. X is not to change.",
 "def spared(X, channel):\n    return None", "Section 5 does it for a list of channels, with `per_token`.",
 """def spared(X, channel):
    quiet = X.clone()
    quiet[:, channel] = X.median(-1).values
    read = per_token(quiet, 8)
    read[:, channel] = X[:, channel]
    return read""")
add("a block quantizer", "Build a block quantizer",
 "Write `rounded(W, size, bits)`: W (out, in), row after row, in blocks of `size` consecutive weights, each rounded to $2^{bits}$ levels from its smallest to its largest, and read back. The shape stays.",
 "def rounded(W, size, bits):\n    return None", "`W.reshape(-1, size)` has a block in each row, also where blocks are longer than rows.",
 """def rounded(W, size, bits):
    blocks = W.reshape(-1, size)
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)  # (n, 1)
    step = (high - low) / (2**bits - 1)
    return (((blocks - low) / step).round() * step + low).view(W.shape)""")
