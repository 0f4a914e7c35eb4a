"""Prune and quantize: a copy for good (`prune`, `quantize`), or for a while (`pruned`, `quantized`)."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

from torch import Tensor

from supertf.compression.calibration import Calibration, calibrate
from supertf.compression.methods import FAMILY, METHODS, check_method, needs_text
from supertf.compression.pruning.dynamic import DynamicPruning, Skipped, dynamically_pruned, plan_dynamic
from supertf.compression.pruning.input_quantiles import InputSizes, input_sizes
from supertf.compression.pruning.static import Pruning, plan_static
from supertf.compression.pruning.structured import UNITS, plan_structured, smaller, structured_model
from supertf.compression.quantization.plan import Quantization, plan_quantization
from supertf.compression.quantization.rounding import Scheme
from supertf.compression.replaced_weights import Model, replaced_copy, replaced_weights
from supertf.data import Text
from supertf.errors import UserError
from supertf.model import LanguageModel, places
from supertf.superweights import coordinates

LENGTH = 512  # tokens of a window where a text does not say, or as many as the model reads
Known: TypeAlias = Calibration | InputSizes | None  # of a text's activations
Read: TypeAlias = Text | Sequence[int] | Tensor  # a text, see `in_windows`


def prune(model: Model, method: str | Pruning, **options: Any) -> Model:
    """A pruned copy of a model; the model is not touched.

    Args:
        model: any causal language model that `load` reads; channels and heads need the lab's `GPT`.
        method: a static one ("random", "magnitude", "wanda", "sparsegpt"; see `METHODS`) makes single
            weights zero; "channels" and "heads" leave whole ones out, so that the copy is smaller. Or a plan
            of `plan_pruning`.
        sparsity: the share that goes, 0 to 1; or pattern="2:4", which keeps 2 of every 4 inputs.
        calibration: a text that is not evaluated, for methods that need one: a `Text` or token ids.
        protect: single weights that keep their values, as `find_super_weights` gives them, or text such as
            "11[507, 1229]"; none by default.
        matrices: kinds such as ["mlp.c_proj"]; by default all but embeddings and head.
        **options: scope, score and seed, as `plan_pruning` takes them.

    Returns:
        A model of the same class: single weights that went are zeros in it.

    Raises:
        UserError: as `plan_pruning` does, on methods that drop other inputs for every token, which no copy
            can hold (`pruned` can), and on weights that are packed, pruned or quantized already.

    Example:
        >>> model, tokenizer = load("smollm2-135m")
        >>> calibration = read_tokens("prose:calibrate", tokenizer, windows=2)
        >>> small = prune(model, "wanda", sparsity=0.5, calibration=calibration, protect="11[507, 1229]")
    """
    plan = plan_pruning(model, method, **options) if isinstance(method, str) else method
    if isinstance(plan, DynamicPruning):
        raise UserError(
            f"{plan.method} drops other inputs for every token, which no copy can hold: use "
            "`with pruned(model, ...)`"
        )
    if plan.method in UNITS:
        return cast(Model, smaller(model, plan))  # which refuses models of another class than its result
    return replaced_copy(model, plan.replacement())


@contextlib.contextmanager
def pruned(
    model: LanguageModel, method: str | Pruning | DynamicPruning, *, watch: Any = (), **options: Any
) -> Iterator[Skipped | None]:
    """Run the model pruned while the context lasts; on leaving, also through an exception, it is as before.

    Inside the context, channels and heads are zeroed, not removed.

    Args:
        model: any causal language model that `load` reads; channels and heads need the lab's `GPT`.
        method, **options: as in `prune`, or a plan of `plan_pruning`.
        watch: single weights of the MLPs' output projections whose inputs are counted, of dynamic methods.

    Yields:
        What is `Skipped`, of dynamic methods ("inputs", "gate", "top"); else None.

    Raises:
        UserError: as `plan_pruning` does, on a plan for other matrices, and on weights that are packed,
            pruned or quantized already; on leaving when the pruned weights were changed meanwhile: then
            nothing is put back, so that no training is lost.

    Example:
        >>> model, tokenizer = load("smollm2-135m")
        >>> with pruned(model, "top", sparsity=0.5):
        ...     tokens = generate(model, tokenizer.encode("The capital of France is"), 5)
    """
    plan = plan_pruning(model, method, watch=watch, **options) if isinstance(method, str) else method
    if isinstance(plan, DynamicPruning):
        with dynamically_pruned(model, plan, coordinates(watch)) as skipped:
            yield skipped
    else:
        with replaced_weights(model, plan.replacement()):
            yield None


def plan_pruning(
    model: LanguageModel,
    method: str,
    *,
    sparsity: float | Mapping[str, float] | None = None,
    pattern: str | None = None,
    scope: str | None = None,
    score: str | None = None,
    matrices: Iterable[str] | None = None,
    calibration: Known | Read = None,
    protect: Any = (),
    watch: Any = (),
    seed: int = 0,
    progress: bool = True,
) -> Pruning | DynamicPruning:
    """What a method would remove of a model, which is not touched.

    Args:
        method: a name in `METHODS`.
        sparsity: the share that goes, 0 to 1; of dynamic methods also one by matrix or kind of matrix.
        pattern: in its place, "2:4" keeps 2 of every 4 inputs; single weights only.
        scope: the weights that are compared, "matrix", "row" or "global"; None is the method's own.
        score: of channels and heads, "activation" (None), "magnitude" or "random".
        matrices: kinds such as "mlp.c_proj"; None is all but embeddings and head.
        calibration: a text that is not evaluated: a `Text`, token ids (N,) in windows of 512, or what
            `calibrate` and `input_sizes` made of one. Methods without need of it do not take it.
        protect: single weights of the MLPs' output projections that keep their values (or their channels, or
            inputs): spikes, coordinates, or text such as "11[507, 1229]".
        watch: weights whose `Fate` the plan is to have; a dynamic one has none, since what is dropped differs
            from token to token: `pruned` counts it.
        seed: of what is random.

    Returns:
        A `Pruning`; of methods that drop inputs token by token a `DynamicPruning`.

    Raises:
        UserError: an unknown method, or an option that it does not have, or out of range; a calibration that
            is missing or of other matrices; a weight outside the model; weights that are not finite.
    """
    check_method(method, pattern=pattern, scope=scope, score=score, matrices=matrices)
    family, known = FAMILY[method], calibration
    if not isinstance(known, Calibration | InputSizes | None):
        known = calibration_for(model, method, known, matrices=matrices, score=score)
    sums = known if isinstance(known, Calibration) else None
    sizes = known if isinstance(known, InputSizes) else None
    protect, watch = coordinates(protect), coordinates(watch)
    places(model, watch)  # all inside the model
    if family == "dynamic" and sparsity is not None:
        return plan_dynamic(model, method, sparsity, sizes, protect=protect, matrices=matrices)
    if isinstance(sparsity, Mapping):
        raise UserError(
            f"{method} takes one sparsity for all matrices, such as 0.5, and was given {sparsity}"
        )
    if family == "static":
        return plan_static(
            model,
            method,
            sparsity,
            sums,
            protect=protect,
            watch=watch,
            scope=scope,
            pattern=pattern,
            seed=seed,
            matrices=matrices,
            progress=progress,
        )
    if sparsity is None:
        raise UserError("give a sparsity, such as 0.5")
    return plan_structured(
        model,
        method,
        sparsity,
        sums,
        protect=protect,
        watch=watch,
        score=score or "activation",
        seed=seed,
        progress=progress,
    )


def calibration_for(
    model: LanguageModel,
    method: str,
    text: Read,
    *,
    matrices: Iterable[str] | None = None,
    score: str | None = None,
) -> Known:
    """Read what a method must know of the model's activations on a text.

    Args:
        model, method, matrices, score: as `plan_pruning` takes them.
        text: a `Text`, or token ids (N,) in windows of 512 or of what the model reads.

    Returns:
        A `Calibration` or `InputSizes`, which `plan_pruning` takes; None where the method needs nothing.

    Raises:
        UserError: an unknown method, and otherwise as `calibrate` and `input_sizes` do.
    """
    check_method(method)
    if FAMILY[method] == "structured":
        structured_model(model)
    if not needs_text(method, score):
        return None
    ids, length = in_windows(model, text)
    needs = METHODS[method].needs
    if needs in ("inputs", "gate"):
        return input_sizes(model, ids, length, of=needs, matrices=matrices)
    kinds = UNITS[method][1:] if method in UNITS else matrices
    return calibrate(model, ids, length, products=needs == "products", matrices=kinds)


def in_windows(model: LanguageModel, text: Read) -> tuple[Sequence[int] | Tensor, int]:
    """A text's token ids (N,) and how many of them make a window, where it does not say as `LENGTH` does."""
    if isinstance(text, Text):
        return text.windows().flatten(), text.length
    return text, min(LENGTH, model.config.n_ctx)


def quantize(model: Model, scheme: Scheme | str | Quantization, **options: Any) -> Model:
    """A copy of a model with weights rounded to few bits; the model is not touched.

    The rounded weights are kept in the model's own dtype: it shows what rounding costs, not what it saves.

    Args:
        model: any causal language model that `load` reads.
        scheme: such as "int4 block=64 clip=error", see `Scheme`; or a plan of `plan_quantization`.
        protect: single weights that keep their values and do not stretch their block's levels, as
            `find_super_weights` gives them; none by default.
        calibration: a `Text` or token ids that are not evaluated, for clip=output.
        matrices: kinds such as ["mlp.c_proj"]; by default all but embeddings and head.
        **options: as `plan_quantization` takes them.

    Raises:
        UserError: as `plan_quantization` does, and on weights that are packed, pruned or quantized already.

    Example:
        >>> model, _ = load("smollm2-135m")
        >>> fewer = quantize(model, "int4 block=64", protect="11[507, 1229]")
    """
    return replaced_copy(model, quantization_of(model, scheme, options).replacement())


@contextlib.contextmanager
def quantized(model: LanguageModel, scheme: Scheme | str | Quantization, **options: Any) -> Iterator[None]:
    """Run the model with quantized weights while the context lasts; on leaving it is as before, bit for bit.

    Args:
        model: any causal language model that `load` reads.
        scheme, **options: as in `quantize`.

    Raises:
        UserError: as `quantize` does; on leaving when the quantized weights were changed meanwhile: then
            nothing is put back.

    Example:
        >>> model, tokenizer = load("smollm2-135m")
        >>> with quantized(model, "int8 block=channel"):
        ...     tokens = generate(model, tokenizer.encode("The capital of France is"), 5)
    """
    with replaced_weights(model, quantization_of(model, scheme, options).replacement()):
        yield


def quantization_of(
    model: LanguageModel, scheme: Scheme | str | Quantization, options: dict[str, Any]
) -> Quantization:
    """The plan of a scheme, or the plan that was given."""
    if isinstance(scheme, Quantization):
        return scheme
    given = options.get("calibration")
    if given is not None and not isinstance(given, Calibration):
        ids, length = in_windows(model, given)
        options = {**options, "calibration": calibrate(model, ids, length, matrices=options.get("matrices"))}
    return plan_quantization(model, scheme, **options)
