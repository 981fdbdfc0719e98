"""`zeroflaw bench`, which joins the command line through an entry point."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zeroflaw.cli.options import BackendOption, BundleArgument, DeviceOption, PrecisionOption
from zeroflaw_engines.backends import DEFAULT_BACKEND
from zeroflaw_engines.errors import BenchmarkError, MissingExtraError
from zeroflaw_engines.process.terminal import err, out, print_warning

if TYPE_CHECKING:
    from zeroflaw_benchmarks.bench.report.text_table import TextTable

EXIT_WORSE: Final = 5
ALL: Final = "all"
_STREAM_FRAMES: Final = 20
_WIDTH: Final = 170


def bench(
    bundle: BundleArgument,
    *,
    product: Annotated[
        str | None, typer.Option("--product", "-p", help="What it shows; default: the first.")
    ] = None,
    backend: BackendOption = DEFAULT_BACKEND,
    precision: PrecisionOption = None,
    device: DeviceOption = 0,
    threads: Annotated[int, typer.Option(min=0, help="Of each engine; 0: every core.")] = 0,
    schedule: Annotated[
        Literal["side_by_side", "clip_first"], typer.Option(help="Of the encoders.")
    ] = "side_by_side",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Size of the frame, px; default: that of the product's settings, or 1024x1024.",
        ),
    ] = None,
    frame: Annotated[
        Path | None, typer.Option(help="A picture to inspect in place of the built-in one.")
    ] = None,
    runs: Annotated[
        int, typer.Option(min=0, help="Warm inspections; 0: as many as fit into 20 s.")
    ] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Of all that is compared; interleaved.")] = 3,
    roofline: Annotated[
        bool, typer.Option(help="Hold engines against this machine's ceilings.")
    ] = True,
    stream: Annotated[
        bool, typer.Option("--stream", help="Measure the gain of pipelined streams.")
    ] = False,
    stream_frames: Annotated[
        int, typer.Option(min=2, help="Frames of each stream.")
    ] = _STREAM_FRAMES,
    scale: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS",
            help="frames_in_flight, threads, processes, megapixels, points, products, tiles or all;"
            " repeatable.",
        ),
    ] = None,
    peers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PEER",
            help="On a CPU torch, torch-bf16, sam-encoder, sam-onnx, samexporter, winclip; on a"
            " GPU torch-MODE-PRECISION with eager, compile, reduce-overhead or cuda-graph and"
            " fp16 or bf16; or all; repeatable.",
        ),
    ] = None,
    load: Annotated[
        bool, typer.Option("--load", help="Hold loading against plain sessions.")
    ] = False,
    frames: Annotated[
        int, typer.Option(min=0, help="Frames of the endurance run; 0 leaves it out.")
    ] = 0,
    compare: Annotated[
        Path | None, typer.Option(metavar="OLD.json", help="Say what moved since this report.")
    ] = None,
    ratios_only: Annotated[
        bool,
        typer.Option("--ratios-only", help="Compare ratios and counts, never times: for CI."),
    ] = False,
    worse_by: Annotated[
        float,
        typer.Option(
            metavar="FACTOR", min=1, help="Call worse only what also changed by this factor."
        ),
    ] = 1.0,
    out_dir: Annotated[
        Path, typer.Option("--out", "-o", help="Directory for the results; made if needed.")
    ] = Path("bench"),
) -> None:
    """Measure how fast a bundle is here, what it is made of, and how far it is from the limit.

    Latency by stage, cold and warm; engines against the machine's own ceilings; and, where asked
    for, streams, scaling, peers, loading and endurance. The directory gets bench.json
    (docs/bench.schema.json), bench.html and bench.md. Needs zeroflaw[bench]; peers need
    zeroflaw[export].

        zeroflaw bench my_bundle --out results

        zeroflaw bench my_bundle --backend openvino --stream --peers torch --peers sam-onnx

        zeroflaw bench my_bundle --compare results/bench.json

    Exit code 5: with --compare, something became worse by more than the noise of both runs
    (and by the factor of --worse-by).
    """
    try:
        from zeroflaw_benchmarks.bench.frames import frame_size
        from zeroflaw_benchmarks.bench.measure.peers import PEERS
        from zeroflaw_benchmarks.bench.measure.scale import AXES
        from zeroflaw_benchmarks.bench.process.run_on import RunOn
        from zeroflaw_benchmarks.bench.report.compare import compare as compare_reports
        from zeroflaw_benchmarks.bench.report.page import report_markdown, report_page
        from zeroflaw_benchmarks.bench.report.report import read_report, report_json
        from zeroflaw_benchmarks.bench.report.tables import comparison_table, tables_of
        from zeroflaw_benchmarks.bench.run import BenchOptions, run_bench
    except ImportError as error:
        raise MissingExtraError(
            f"`zeroflaw bench` needs libraries that are not installed ({error.name})",
            "pip install 'zeroflaw[bench]'",
        ) from error
    old = None if compare is None else read_report(compare)
    options = BenchOptions(
        bundle=bundle,
        product=product,
        run_on=RunOn(backend, precision, threads, device),
        schedule=schedule,
        size=None if size is None else frame_size(size),
        picture=frame,
        runs=runs,
        rounds=rounds,
        roofline=roofline,
        stream=stream_frames if stream else 0,
        scale=_chosen(scale, AXES, "--scale"),
        # `all` are those of the device, which `auto` is yet to choose.
        peers=(ALL,) if ALL in (peers or ()) else _chosen(peers, PEERS, "--peers"),
        load=load,
        frames=frames,
        command=shlex.join(["zeroflaw", *sys.argv[1:]]),
    )
    with err.status("measuring") as status:
        report = run_bench(options, lambda what: status.update(f"measuring: {what}"))
    comparison = (
        None
        if old is None
        else compare_reports(old, report, ratios_only=ratios_only, worse_by=worse_by)
    )
    extra = () if comparison is None else (comparison_table(comparison),)
    json_file, page = out_dir / "bench.json", out_dir / "bench.html"
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        json_file.write_bytes(report_json(report))
        page.write_text(report_page(report, extra), encoding="utf-8")
        (out_dir / "bench.md").write_text(report_markdown(report, extra), encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(
            f"{out_dir} cannot be written: {error.strerror}", "choose another --out"
        ) from error
    for table in (*tables_of(report), *extra):
        _print(table)
    for note in report.notes:
        print_warning(note)
    out.print(f"\nwritten: {json_file}, {page}", markup=False)
    if comparison is not None and comparison.worse:
        names = ", ".join(change.name for change in comparison.worse)
        print_warning(f"worse by more than the noise: {names}")
        raise typer.Exit(EXIT_WORSE)


def _chosen(named: list[str] | None, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    names = known if ALL in (named or ()) else tuple(named or ())
    for name in names:
        if name not in known:
            raise BenchmarkError(
                f"{option} has no {name!r}", f"choose from: {', '.join((*known, ALL))}"
            )
    return names


def _print(table: TextTable) -> None:
    two = len(table.heads) == 2
    printed = Table(title=table.title, title_justify="left", box=None, title_style="bold")
    for number, head in enumerate(table.heads):
        printed.add_column(head, justify="left" if two or not number else "right", no_wrap=not two)
    for row in table.rows:
        printed.add_row(*map(Text, row))
    console = Console(highlight=False, width=max(_WIDTH, out.width))  # files are 80 wide
    console.print()
    console.print(printed)
    if table.note:
        console.print(table.note, markup=False, style="dim")
