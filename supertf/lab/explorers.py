"""Explorers that live without a kernel: plotly figures with sliders, menus and hovering, of plain data.

Each is a function of numbers, and everything that its controls can show is inside the figure. `explorer` puts
one into a cell's output with a picture beside it, for viewers that run no JavaScript.
"""

import base64
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from supertf.errors import UserError
from supertf.lab.plots import BLUE, COLORS, GREY, ORANGE, RED

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

PLOTLY_MIME = "application/vnd.plotly.v1+json"
LARGEST = 150_000  # bytes of one explorer in a stored notebook
HEAT = [[0.0, "#f7fbff"], [0.5, "#6baed6"], [1.0, "#08306b"]]
LEVEL_MARKS = (  # name, symbol, colour and size
    ("as it is", "circle-open", GREY, 7),
    ("rounded", "circle", BLUE, 7),
    ("held out", "star", ORANGE, 11),
)
BUTTON = 35  # pixels of a menu's line
MARGINS = {"l": 60, "r": 20, "t": 60, "b": 50}


def explorer(figure: "go.Figure", picture: "Figure") -> None:
    """Show an explorer in a notebook, and below it the picture, for viewers that run no JavaScript.

    They are two outputs: of one with both, JupyterLab shows the picture until the mouse is over it.

    Args:
        figure: from a function of this module.
        picture: a matplotlib figure of what matters in it; it is closed.

    Raises:
        UserError: the explorer is too large to be stored.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    content = figure.to_json()
    if (size := len(content.encode())) > LARGEST:
        raise UserError(f"the explorer has {size:,} bytes, expected at most {LARGEST:,}: show less")
    told = "[an explorer: open the notebook in JupyterLab or Colab, or read the book]"
    bundle = {PLOTLY_MIME: json.loads(content), "text/plain": told}
    if "google.colab" in sys.modules:  # which draws HTML, and has a network to load plotly.js from
        bundle["text/html"] = figure.to_html(full_html=False, include_plotlyjs="cdn")
    display(bundle, raw=True)
    drawn = io.BytesIO()
    picture.savefig(drawn, format="png")
    plt.close(picture)
    display(
        {"image/png": base64.b64encode(drawn.getvalue()).decode(), "text/plain": "[a picture of it]"},
        raw=True,
    )


def plotly_script(name: str, figure: Mapping[str, Any]) -> str:
    """What draws a figure into the element `name` of a page that has plotly.js.

    Args:
        name: the element's id.
        figure: its `data` and `layout`, as plotly's JSON has them; texts in them cannot end the script.
    """
    data, layout = (
        json.dumps(figure[part], default=list).replace("</", "<\\/") for part in ("data", "layout")
    )
    options = "{responsive: true, displaylogo: false}"
    return f'<script>Plotly.newPlot("{name}", {data}, {layout}, {options});</script>'


def entropy_explorer(models: Mapping[str, tuple[Sequence[int], Any]]) -> "go.Figure":
    """Attention entropy against length: a map of layers and heads for each model, and a slider over lengths.

    Below each map are the curves of its heads, which tell their values where the mouse is.

    Args:
        models: by name, lengths, the same for all, and H / log n (layers, heads, lengths), between 0 and 1.
    """
    from plotly.subplots import make_subplots

    lengths = list(next(iter(models.values()))[0])
    shares = {name: rounded(values, 3) for name, (_, values) in models.items()}
    figure = make_subplots(2, len(models), column_titles=list(models), vertical_spacing=0.16)
    for column, values in enumerate(shares.values(), 1):
        heat = {"z": at(values, 0), "coloraxis": "coloraxis"}
        hover = "layer %{y}, head %{x}: %{z:.3f}<extra></extra>"
        figure.add_heatmap(**heat, hovertemplate=hover, row=1, col=column)
        for layer, heads in enumerate(values):  # a trace for each layer: its heads' curves, with gaps between
            figure.add_scatter(
                x=[*lengths, None] * len(heads),
                y=[share for curve in heads for share in (*curve, None)],
                customdata=[head for head in range(len(heads)) for _ in range(len(lengths) + 1)],
                hovertemplate=f"layer {layer}, head %{{customdata}}: %{{y:.3f}}<extra></extra>",
                mode="lines",
                line={"width": 1, "color": shade(layer, len(values))},
                showlegend=False,
                row=2,
                col=column,
            )
    maps = [trace for trace in range(len(figure.data)) if figure.data[trace].type == "heatmap"]
    steps = [
        {
            "label": f"{length:,}",
            "method": "update",
            "args": [
                {"z": [at(values, i) for values in shares.values()]},
                {"shapes": lines_at(length, len(models))},
                maps,
            ],
        }
        for i, length in enumerate(lengths)
    ]
    figure.update_xaxes(title_text="head", row=1, dtick=1)
    figure.update_annotations(font_size=12)  # the titles above the columns
    figure.update_yaxes(row=1, autorange="reversed")
    figure.update_yaxes(title_text="layer", row=1, col=1)
    figure.update_xaxes(title_text="keys seen", type="log", row=2)
    figure.update_yaxes(range=[0, 1], row=2)
    figure.update_yaxes(title_text="H / log n", row=2, col=1)
    bar = {"title": "H / log n", "len": 0.5, "y": 0.8}
    figure.update_layout(coloraxis={"colorscale": HEAT, "cmin": 0, "cmax": 1, "colorbar": bar})
    figure.update_layout(shapes=lines_at(lengths[0], len(models)))
    return styled(figure, 620, [slider(steps, "keys seen: ")])


def spike_explorer(
    prompts: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]], thresholds: Sequence[float]
) -> "go.Figure":
    """What each block adds to the residual stream, by layer and token, with and without a weight.

    A menu chooses the prompt; bars below have each layer's largest, and a slider moves the threshold.

    Args:
        prompts: by name, the tokens' texts, and by state, of which there are two at most, the largest
            magnitude of what each layer's down projection gives at each token, (layers, tokens).
        thresholds: that the slider offers.
    """
    from plotly.subplots import make_subplots

    states = list(next(iter(prompts.values()))[1])
    figure = make_subplots(
        2, len(states), column_titles=states, vertical_spacing=0.18, shared_yaxes=True, row_heights=[0.6, 0.4]
    )
    buttons: list[dict[str, Any]] = []
    for name, (tokens, values) in prompts.items():
        labels = [f"{i}: {token}" for i, token in enumerate(tokens)]
        update: dict[str, list[Any]] = {"x": [], "y": [], "z": [], "customdata": []}
        for state in states:  # a map and bars
            table = rounded(values[state], 4, significant=True)
            layers = list(range(len(table)))
            update["x"] += [labels, layers]
            update["y"] += [layers, [max(row) for row in table]]
            update["z"] += [[[round(math.log10(max(x, 1e-3)), 3) for x in row] for row in table], None]
            update["customdata"] += [table, None]
        buttons.append({"label": name, "method": "restyle", "args": [update]})
    first: dict[str, list[Any]] = buttons[0]["args"][0]
    for column, color in enumerate((BLUE, ORANGE)[: len(states)], 1):
        hover = "layer %{y}, token %{x}: %{customdata:,.4g}<extra></extra>"
        upper, lower = 2 * column - 2, 2 * column - 1  # the map, the bars
        heat = {key: of_traces[upper] for key, of_traces in first.items()}
        figure.add_heatmap(**heat, coloraxis="coloraxis", hovertemplate=hover, row=1, col=column)
        hover = "layer %{x}: %{y:,.4g}<extra></extra>"
        looks = {"marker_color": color, "showlegend": False, "hovertemplate": hover}
        figure.add_bar(x=first["x"][lower], y=first["y"][lower], **looks, row=2, col=column)
    steps = [
        {"label": f"{t:g}", "method": "relayout", "args": [{"shapes": thresholds_at(t, len(states))}]}
        for t in thresholds
    ]
    figure.update_yaxes(title_text="layer", row=1, col=1, autorange="reversed")
    figure.update_xaxes(tickangle=-60, row=1)
    figure.update_xaxes(title_text="layer", row=2)
    figure.update_yaxes(type="log", row=2)
    figure.update_yaxes(title_text="largest output", row=2, col=1)
    ticks = {"tickvals": [-2, 0, 2, 4], "ticktext": ["0.01", "1", "100", "10,000"]}
    bar = {"title": "largest<br>output", "len": 0.5, "y": 0.8, **ticks}
    figure.update_layout(coloraxis={"colorscale": HEAT, "cmin": -2, "cmax": 4.5, "colorbar": bar})
    figure.update_layout(shapes=thresholds_at(thresholds[0], len(states)))
    return styled(figure, 680, [slider(steps, "threshold: ")], [menu(buttons)])


def cost_explorer(methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> "go.Figure":
    """What leaving parts out costs: a line for each method, which the legend shows and hides.

    Args:
        methods: by name, points with `x`, `y` (times the perplexity), `low` and `high` of its interval, and
            `facts`, lines that are told where the mouse is.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, (name, points) in enumerate(methods.items()):
        ordered = sorted(points, key=lambda point: point["x"])
        up, down = ([abs(point[end] - point["y"]) for point in ordered] for end in ("high", "low"))
        figure.add_scatter(
            x=[point["x"] for point in ordered],
            y=rounded([point["y"] for point in ordered], 5, significant=True),
            error_y={"array": rounded(up, 3, True), "arrayminus": rounded(down, 3, True), "thickness": 1},
            name=name,
            mode="lines+markers",
            marker={"symbol": number % 8, "size": 9},
            line={"color": COLORS[number % len(COLORS)], "dash": ("solid", "dot", "dash")[number // 7 % 3]},
            text=["<br>".join(point["facts"]) for point in ordered],
            hovertemplate="<b>%{fullData.name}</b>, %{x:.0%}: × %{y:.4g}<br>%{text}<extra></extra>",
        )
    figure.add_hline(1, line={"color": GREY, "width": 1})
    figure.update_xaxes(title_text="share that is left out", tickformat=".0%")
    figure.update_yaxes(title_text="times the perplexity", type="log")
    figure.update_layout(legend={"font": {"size": 11}})
    return styled(figure, 620)


def ratio_explorer(rows: Sequence[Mapping[str, Any]], group: str) -> "go.Figure":
    """Times the perplexity with intervals, a row for each thing, a colour for each group.

    Args:
        rows: with `name`, `times`, `low` and `high`, and the group under the key `group`.
        group: that key.
    """
    import plotly.graph_objects as go

    names, figure = list(dict.fromkeys(row["name"] for row in rows)), go.Figure()
    groups = list(dict.fromkeys(row[group] for row in rows))
    for number, which in enumerate(groups):
        some = [row for row in rows if row[group] == which]
        values = [row["times"] for row in some]
        up, down = ([abs(row[end] - row["times"]) for row in some] for end in ("high", "low"))
        place = (number - (len(groups) - 1) / 2) / 5  # side by side where they share a row
        figure.add_scatter(
            x=rounded(values, 5, significant=True),
            y=[names.index(row["name"]) + place for row in some],
            error_x={"array": rounded(up, 3, True), "arrayminus": rounded(down, 3, True), "thickness": 1},
            name=which,
            mode="markers",
            marker={"symbol": number, "size": 9, "color": COLORS[number % len(COLORS)]},
            text=[row["name"] for row in some],
            hovertemplate="%{text}<br>%{fullData.name}: × %{x:.4g}<extra></extra>",
        )
    figure.add_vline(1, line={"color": GREY, "width": 1})
    figure.update_xaxes(title_text="times the perplexity", type="log")
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, autorange="reversed", automargin=True
    )
    return styled(figure, 180 + 45 * len(names))


def dial_explorer(factors: Sequence[float], times: Sequence[float]) -> "go.Figure":
    """Times the perplexity against the factor that a weight is multiplied with."""
    import plotly.graph_objects as go

    hover = "× %{x:g}: %{y:.4g} times the perplexity<extra></extra>"
    figure = go.Figure()
    line = {"color": BLUE}
    figure.add_scatter(x=list(factors), y=rounded(times, 5, True), line=line, hovertemplate=hover)
    figure.add_hline(1, line={"color": GREY, "width": 1})
    figure.update_xaxes(title_text="the weight, times")
    figure.update_yaxes(title_text="times the perplexity", type="log")
    return styled(figure, 380)


def level_explorer(schemes: Mapping[str, Mapping[str, Any]]) -> "go.Figure":
    """Levels and blocks of one row of weights: each weight, where it is rounded to, and what is held out.

    Args:
        schemes: by name, `weights` and `rounded` of the row, `blocks`, where these begin, `held`, the indices
            of what is held out, and `error`, a text.
    """
    import plotly.graph_objects as go

    buttons: list[dict[str, Any]] = []
    for name, one in schemes.items():
        before, after = rounded(one["weights"], 4, True), rounded(one["rounded"], 4, True)
        index, held = list(range(len(before))), one["held"]
        moved = {
            "x": [index, index, held],
            "y": [before, after, [before[i] for i in held]],
            "text": [after, before, after],
        }
        edges = [vertical(edge - 0.5, "x", "y") for edge in one["blocks"]]
        told = {"title.text": f"{name}: {one['error']}", "shapes": edges}
        buttons.append({"label": name, "method": "update", "args": [moved, told]})
    marks, layout = buttons[0]["args"]
    figure = go.Figure()
    for (label, symbol, color, size), x, y, text in zip(LEVEL_MARKS, *marks.values(), strict=True):
        figure.add_scatter(
            **{"x": x, "y": y, "text": text, "name": label, "mode": "markers"},
            marker={"symbol": symbol, "color": color, "size": size},
            hovertemplate=f"input %{{x}}, {label}: %{{y:.4g}} (%{{text}})<extra></extra>",
        )
    title = {"text": layout["title.text"], "x": 1, "xanchor": "right"}
    figure.update_layout(title=title, shapes=layout["shapes"])
    figure.update_xaxes(title_text="input channel")
    figure.update_yaxes(title_text="weight")
    return styled(figure, 460, menus=[menu(buttons)])


def needle_explorer(
    n: Sequence[int], gaps: Sequence[float], scales: Sequence[float], constant: float
) -> "go.Figure":
    """The weight of one key that stands a gap above n - 1 equal others: softmax, SSMax and a constant.

    A slider moves the gap, a menu chooses the s of SSMax.

    Args:
        n: numbers of keys, the horizontal axis.
        gaps: in logits; what the slider offers.
        scales: values of s; what the menu offers.
        constant: the control: a factor on the logits that does not depend on n.
    """
    import plotly.graph_objects as go

    def curves(gap: float, s: float) -> list[list[float]]:
        factors = ([1.0] * len(n), [s * math.log(m) for m in n], [constant] * len(n))
        return [
            [round(1 / (1 + (m - 1) * math.exp(-f * gap)), 4) for m, f in zip(n, by_n, strict=True)]
            for by_n in factors
        ]

    names = ("softmax", "SSMax", f"constant {constant:g}")
    middle, s = gaps[len(gaps) // 2], scales[len(scales) // 2]
    figure = go.Figure()
    for name, y, color in zip(names, curves(middle, s), COLORS, strict=False):
        hover = f"{name}, %{{x:,}} keys: %{{y:.4f}}<extra></extra>"
        figure.add_scatter(x=list(n), y=y, name=name, line={"color": color}, hovertemplate=hover)

    def by_gap(s: float) -> dict[str, Any]:
        steps = [{"label": f"{gap:g}", "method": "restyle", "args": [{"y": curves(gap, s)}]} for gap in gaps]
        return slider(steps, "gap: ", len(gaps) // 2)

    buttons = [
        {
            "label": f"s = {one:g}",
            "method": "update",
            "args": [{"y": curves(middle, one)}, {"sliders": [by_gap(one)]}],
        }
        for one in scales
    ]
    figure.update_xaxes(title_text="keys seen", type="log")
    figure.update_yaxes(title_text="weight on the needle", range=[0, 1.03])
    return styled(figure, 460, [by_gap(s)], [menu(buttons, len(scales) // 2)])


def attention_explorer(tokens: Sequence[str], maps: Mapping[str, Any]) -> "go.Figure":
    """Where each token looks: a map of queries and keys, with a menu of heads.

    Args:
        tokens: their texts.
        maps: by name of a head, attention weights (T, T).
    """
    import plotly.graph_objects as go

    labels = [f"{i}: {token}" for i, token in enumerate(tokens)]
    tables = {name: rounded(weights, 3) for name, weights in maps.items()}
    figure = go.Figure()
    hover = "%{y} looks at %{x}: %{z:.3f}<extra></extra>"
    first = next(iter(tables.values()))
    figure.add_heatmap(x=labels, y=labels, z=first, colorscale=HEAT, zmin=0, zmax=1, hovertemplate=hover)
    buttons = [
        {"label": name, "method": "restyle", "args": [{"z": [table]}]} for name, table in tables.items()
    ]
    figure.update_xaxes(title_text="key", tickangle=-60)
    figure.update_yaxes(title_text="query", autorange="reversed")
    return styled(figure, 560, menus=[menu(buttons)])


# --- parts ------------------------------------------------------------------------------------------------


def styled(
    figure: "go.Figure",
    height: int,
    sliders: Sequence[dict[str, Any]] = (),
    menus: Sequence[dict[str, Any]] = (),
) -> "go.Figure":
    """The one style of all explorers; sliders stand below the axes, menus above them.

    It is as high as asked for, or as its longest menu when that is open: what hangs out cannot be clicked.
    """
    bottom = 130 if sliders else MARGINS["b"]
    longest = max((len(one["buttons"]) for one in menus), default=0)
    figure.update_layout(
        template="simple_white",
        height=max(height, 100 + longest * BUTTON),
        margin={**MARGINS, "b": bottom, "t": 90 if menus else MARGINS["t"]},
        sliders=list(sliders),
        updatemenus=list(menus),
        font={"size": 13},
        hoverlabel={"align": "left"},
    )
    return figure


def slider(steps: Sequence[dict[str, Any]], prefix: str, active: int = 0) -> dict[str, Any]:
    """A slider over steps, which says where it stands."""
    value = {"prefix": prefix, "font": {"size": 14}}
    return {"steps": list(steps), "active": active, "currentvalue": value, "pad": {"t": 50}}


def menu(buttons: Sequence[dict[str, Any]], active: int = 0) -> dict[str, Any]:
    """A menu that drops down, above the axes on the left."""
    place = {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "pad": {"b": 22}}
    return {"buttons": list(buttons), "active": active, **place}


def line(dash: str, color: str, width: float, **ends: Any) -> dict[str, Any]:
    """A straight line between two points."""
    return {"type": "line", "line": {"color": color, "width": width, "dash": dash}, "opacity": 1, **ends}


def vertical(x: float, xref: str, yref: str) -> dict[str, Any]:
    """A vertical line over the whole height of an axis."""
    return line("dot", GREY, 1, xref=xref, yref=f"{yref} domain", x0=x, x1=x, y0=0, y1=1)


def lines_at(x: float, columns: int) -> list[dict[str, Any]]:
    """A vertical line in each axis of the second row."""
    return [vertical(x, f"x{axis}", f"y{axis}") for axis in range(columns + 1, 2 * columns + 1)]


def thresholds_at(y: float, columns: int) -> list[dict[str, Any]]:
    """A horizontal line in each axis of the second row."""
    ends = {"x0": 0, "x1": 1, "y0": y, "y1": y}
    return [
        line("dash", RED, 1.5, xref=f"x{axis} domain", yref=f"y{axis}", **ends)
        for axis in range(columns + 1, 2 * columns + 1)
    ]


def at(values: Sequence[Sequence[Sequence[float]]], i: int) -> list[list[float]]:
    """The entry i of every innermost list: (layers, heads, lengths) to (layers, heads)."""
    return [[curve[i] for curve in heads] for heads in values]


def shade(layer: int, layers: int) -> str:
    """A blue for an early layer, an orange for a late one."""
    share = layer / max(layers - 1, 1)
    ends = ((51, 102, 170), (221, 119, 34))
    return "rgb({}, {}, {})".format(*(round(a + share * (b - a)) for a, b in zip(*ends, strict=True)))


def rounded(values: Any, digits: int, significant: bool = False) -> Any:
    """Nested lists of Python numbers with few digits, of lists, arrays or tensors."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [rounded(one, digits, significant) for one in values]
    return float(f"{values:.{digits}g}") if significant else round(float(values), digits)
