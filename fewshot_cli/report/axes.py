"""The report of a sweep over further axes: tables in four formats, figures, the claims of a study, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fewshot_cli.files import write_atomically, write_json, write_text
from fewshot_cli.report.cells import write_cells
from fewshot_cli.report.page import write_page
from fewshot_cli.report.pivot import (
    LEGEND,
    PAIRED,
    comma_separated,
    difference_rows,
    header,
    latex,
    marginal_figure,
    markdown,
    styled_rows,
    title,
)
from fewshot_cli.report.plots import Plot, figure_url
from fewshot_cli.report.study import draw
from fewshot_cli.sweeps.folder import SweepFolder
from fewshot_cli.sweeps.pivot import Pivot, Results, pivots
from fewshot_cli.sweeps.studies import get_study
from fewshot_cli.sweeps.studies.contract import Study, Verdict


def write_axes_report(folder: SweepFolder, results: Results) -> list[Path]:
    """Write `cells.csv`, `table.md`, `.tex`, `.csv`, `.json`, the figures as PNG, and `report.html`.

    Raises:
        StorageError: a file cannot be written.
    """
    path, found = folder.path, pivots(folder.config, results)
    kinds = [(pivot, measure) for measure in _measures(folder) for pivot in found]
    write_text(path / "table.md", "\n".join(markdown(*kind) for kind in kinds) + _claims_text(folder, results))
    write_text(path / "table.tex", "\n".join(latex(*kind) for kind in kinds))
    write_text(path / "table.csv", comma_separated(found))
    write_json(path / "table.json", [pivot.to_json() for pivot in found])
    files = [path / f"table.{ending}" for ending in ("md", "tex", "csv", "json")]
    figures = _figures(folder, results, found)
    for number, (_, figure) in enumerate(figures, 1):
        files.append(_write_figure(path / f"figure-{number}.png", figure))
    return [write_axes_page(folder, results), write_cells(folder, results), *files]


def write_axes_page(folder: SweepFolder, results: Results, page: Path | None = None) -> Path:
    """Write the page alone; default: `report.html` in the folder. Raises StorageError."""
    page, found, study = page or folder.path / "report.html", pivots(folder.config, results), _study(folder)
    plots = [Plot(name, figure_url(figure), name) for name, figure in _figures(folder, results, found)]
    write_page(
        page,
        "axes.html",
        options=folder.config.to_json(),
        study=study,
        claims=verdicts(folder, results),
        tables=[
            {
                "title": title(pivot, measure),
                "header": header(pivot),
                "rows": styled_rows(pivot, measure),
                "differences": difference_rows(pivot, measure),
            }
            for measure in _measures(folder)
            for pivot in found
        ],
        plots=plots,
        legend=LEGEND,
        paired=PAIRED,
        missing=[str(cell) for cell in folder.grid.cells() if cell not in results],
    )
    return page


def verdicts(folder: SweepFolder, results: Results) -> list[Verdict]:
    """What the finished cells say of the claims of the sweep's study; none without a study, or without cells."""
    study = _study(folder)
    return list(study.judge(results)) if study and results else []


def markdown_claims(claims: Sequence[Verdict]) -> str:
    """The claims as a Markdown table."""
    rows = [f"| {claim.claim} | {claim.measured} | {claim.verdict} |" for claim in claims]
    return "\n".join(["| claim | measured | |", "| --- | --- | --- |", *rows]) + "\n"


def _claims_text(folder: SweepFolder, results: Results) -> str:
    claims = verdicts(folder, results)
    return f"\n**Claims of the source**\n\n{markdown_claims(claims)}" if claims else ""


def _study(folder: SweepFolder) -> Study | None:
    return get_study(folder.config.study) if folder.config.study else None


def _measures(folder: SweepFolder) -> tuple[str, ...]:
    """What has a table of its own; without columns a single table shows everything."""
    study = _study(folder)
    return study.measures if study else ("ap",)


def _figures(folder: SweepFolder, results: Results, found: Sequence[Pivot]) -> list[tuple[str, Figure]]:
    """Title and figure: those of the study, or mAP against the axes of each table."""
    study = _study(folder)
    if study:
        drawn = [(one.title, draw(one, results, lambda cell: folder.run(cell).read_metrics())) for one in study.figures]
    else:
        drawn = [(title(pivot), marginal_figure(pivot)) for pivot in found]
    return drawn


def _write_figure(path: Path, figure: Figure) -> Path:
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    return path
