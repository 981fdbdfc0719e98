"""A bench report as tables, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.process.scale_run import HOST_STAGE
from zeroflaw_benchmarks.bench.report.compare import Change, Comparison
from zeroflaw_benchmarks.bench.report.gpu_tables import (
    ceilings_text,
    gpu_peer_table,
    gpu_table,
    transfer_table,
)
from zeroflaw_benchmarks.bench.report.peer import Peer
from zeroflaw_benchmarks.bench.report.report import (
    BenchReport,
    Goal,
    Growth,
    HostTime,
    LoadTime,
    ScalePoint,
    StreamGain,
)
from zeroflaw_benchmarks.bench.report.text_table import TextTable, ms, spread_ms
from zeroflaw_benchmarks.bench.report.throughput import BatchThroughput, CloneThroughput


def tables_of(report: BenchReport) -> tuple[TextTable, ...]:
    """Lay out every section of a report that was measured."""
    found = [machine_table(report), latency_table(report), host_table(report.host)]
    found += map(host_table, report.host_beside_gpu)
    if report.gpus:
        found.append(gpu_table(report.gpus))
    if report.pinned:
        found.append(transfer_table(report.latency.transfers, report.pinned))
    if report.roofline:
        found.append(roofline_table(report))
    if report.stream is not None:
        found.append(stream_table(report.stream))
    if report.clones:
        found.append(clone_table(report.clones, on_gpu=bool(report.gpus)))
    if report.batches:
        found.append(batch_table(report.batches))
    on_gpu = [peer for peer in report.peers if peer.device not in {"", "cpu"}]
    if len(on_gpu) < len(report.peers):
        found.append(peer_table([peer for peer in report.peers if peer not in on_gpu]))
    if on_gpu:
        found.append(gpu_peer_table(on_gpu))
    if report.scale:
        found += [scale_table(report.scale), growth_table(report.growth)]
    if report.load is not None:
        found.append(load_table(report.load))
    if report.goals:
        found.append(goal_table(report.goals))
    return tuple(found)


def machine_table(report: BenchReport) -> TextTable:
    """Lay out the machine and what was measured on it."""
    machine, before, after, subject = report.machine, report.before, report.after, report.subject
    clocks = [f"{min(state.clocks_mhz):.0f}" for state in (before, after) if state.clocks_mhz]
    heat = [
        f"{max(state.temperatures_c.values()):.0f}"
        for state in (before, after)
        if state.temperatures_c
    ]
    rows = [
        ("bundle", f"{subject.bundle}: {subject.models}, identity {subject.identity[:12]}"),
        ("frame", subject.frame),
        ("backend", f"{subject.backend}; threads {subject.threads or 'all'}"),
        ("schedule", subject.encoder_schedule),
        ("processor", f"{machine.processor}, {machine.cores} cores, {' '.join(machine.features)}"),
        (
            "system",
            f"{machine.system}, Python {machine.python}, zeroflaw {report.zeroflaw_version}",
        ),
        ("libraries", ", ".join(f"{name} {text}" for name, text in machine.versions.items())),
        ("clocks", f"{' to '.join(clocks) or 'not told'} MHz, governor {machine.governor or '-'}"),
        ("temperature", f"{' to '.join(heat)} C" if heat else "not told (no thermal zones)"),
        ("load average", f"{before.load_average} before, {after.load_average} after"),
    ]
    if machine.thread_variables:
        variables = (f"{name}={value}" for name, value in machine.thread_variables.items())
        rows.append(("environment", ", ".join(variables)))
    if subject.parameters:
        rows.append(("parameters", ", ".join(f"{k}={v}" for k, v in subject.parameters.items())))
    return TextTable("What was measured", ("", ""), tuple(rows))


def latency_table(report: BenchReport) -> TextTable:
    """Lay out the milliseconds of each stage."""
    latency = report.latency
    total = next(stage.p50 for stage in latency.stages if stage.kind == "total")
    limits = {row.engine: f"{100 * row.fraction:.0f} %" for row in report.roofline}
    rows = tuple(
        (
            stage.stage,
            stage.kind,
            "" if stage.cold_ms is None else ms(stage.cold_ms),
            *map(ms, (stage.minimum, stage.p50, stage.p90, stage.p99, stage.maximum)),
            f"{100 * stage.p50 / total:.2f} %",
            limits.get(stage.stage.rstrip("_123"), ""),
        )
        for stage in latency.stages
    )
    crossing = [one for one in latency.transfers if one.crosses]
    moved = sum(one.megabytes for one in crossing)
    handed = sum(one.megabytes for one in latency.transfers)
    copies = (
        f"{moved:.1f} MB cross between host and device"
        if crossing
        else f"engines read and write {handed:.1f} MB of host memory in place; nothing crosses"
    )
    samples = len(latency.stages[0].samples_ms)
    return TextTable(
        f"Latency, ms, {samples} warm inspections, one at a time",
        ("stage", "kind", "cold", "min", "p50", "p90", "p99", "max", "of total", "of limit"),
        rows,
        f"The encoders run side by side, each slower than alone, so parts add up to more than the"
        f" total; the total begins with the pixels, decoding the file is apart; of limit: the"
        f" engine alone against its roofline. Outside engines:"
        f" {latency.host_ms.middle:.2f} ms on the critical path,"
        f" {latency.host_work_ms.middle:.2f} ms of work"
        f" ({100 * latency.host_share.middle:.2f} % of the total). Load:"
        f" {latency.load_ms:.0f} ms. Peak memory: {latency.peak_rss_gb:.2f} GB, mapped weights"
        f" included. Transfers of one inspection: {copies}.",
    )


_HOST_PATHS: Final = {"cpu": "engines on the CPU", "gpu": "engines on a GPU"}
_HOST_MASKS: Final = {"defect": "one defect", "specks": "a mask of specks"}


def host_table(host: HostTime) -> TextTable:
    """Lay out host code alone."""
    return TextTable(
        f"Host code alone, {_HOST_PATHS[host.path]}, {_HOST_MASKS[host.mask]},"
        f" {host.runs} frames of {host.frame_width}x{host.frame_height} px",
        ("part", "ms"),
        tuple((part, spread_ms(value, 1.0)) for part, value in host.parts_ms.items()),
        f"Engines of full size that answer at once, {host.cores} cores: nothing contends."
        " Polygons are made after the decision, when somebody asks for them, and come on top.",
    )


def roofline_table(report: BenchReport) -> TextTable:
    """Lay out engines against the machine's ceilings."""
    rows = tuple(
        (
            row.engine,
            str(row.calls),
            f"{row.gflop:.2f}",
            f"{row.megabytes:.1f}",
            f"{row.megabytes_unfused:.0f}",
            ms(row.floor_ms),
            row.bound,
            ms(row.call_ms.middle),
            f"{100 * row.fraction:.0f} %",
            "" if row.matrix_share is None else f"{100 * row.matrix_share:.0f} %",
            "" if row.with_transfers_ms is None else ms(row.with_transfers_ms.middle),
        )
        for row in report.roofline
    )
    heads = ("engine", "calls", "GFLOP", "MB least", "MB unfused", "floor, ms", "bound by")
    return TextTable(
        "Roofline, one call of each engine alone",
        (*heads, "p50, ms", "of the limit", "of products", "with transfers, ms"),
        rows,
        f"Ceilings measured in this run {ceilings_text(report.ceilings)}.",
    )


def stream_table(stream: StreamGain) -> TextTable:
    """Lay out what the pipelined mode gains."""
    return TextTable(
        f"Stream of {stream.frames} frames, {stream.rounds} rounds",
        ("mode", "frames a second", "gain", "queue, ms"),
        (
            (
                "pipelined",
                str(stream.per_second),
                str(stream.gain),
                f"{stream.queue_ms.middle:.0f}",
            ),
            ("one after the other", str(stream.per_second_alone), "1", ""),
        ),
    )


def clone_table(clones: Sequence[CloneThroughput], *, on_gpu: bool) -> TextTable:
    """Lay out throughput by clones of the Inspector."""
    rows = tuple(
        (
            str(row.clones),
            str(row.per_second),
            str(row.ratio),
            ms(row.latency_p50_ms),
            ms(row.latency_p99_ms),
            "" if row.gpu_memory_gb is None else f"{row.gpu_memory_gb:.2f}",
        )
        for row in clones
    )
    shared = "GPU memory is of all processes." if on_gpu else "All of them share the same cores."
    return TextTable(
        f"Clones on the same weights, {clones[0].frames} frames a round from one source",
        ("clones", "frames a second", "to one", "p50, ms", "p99, ms", "GPU GB"),
        rows,
        f"Each clone has a pipelined stream; latency is from `submit` to the result, with three"
        f" frames under way in each stream. {shared}",
    )


def batch_table(batches: Sequence[BatchThroughput]) -> TextTable:
    """Lay out throughput by frames of one call of the encoders."""
    names = tuple(batches[0].encoders_ms)
    return TextTable(
        f"Batches, {batches[0].frames} frames a round",
        ("batch", "frames a second", "to one", *(f"{name}, ms a frame" for name in names)),
        tuple(
            (
                str(row.batch),
                str(row.per_second),
                str(row.ratio),
                *(ms(row.encoders_ms[name]) for name in names),
            )
            for row in batches
        ),
        "One call after the other; each frame is decoded alone.",
    )


def peer_table(peers: Sequence[Peer]) -> TextTable:
    """Lay out what others take for the job or a part of it."""
    rows = tuple(
        (
            peer.name,
            peer.part,
            peer.weights,
            spread_ms(peer.seconds),
            spread_ms(peer.ours),
            "" if peer.times_faster is None else str(peer.times_faster),
            _both(peer.peak_rss_gb, peer.ours_peak_rss_gb),
            peer.agreement if not peer.why_not else f"did not run: {peer.why_not}",
        )
        for peer in peers
    )
    heads = ("peer", "part", "weights", "its ms", "ours, ms")
    return TextTable(
        "Peers, same image, same threads, interleaved rounds",
        (*heads, "ours is faster x", "GB", "agreement"),
        rows,
        "Ratios are taken inside each round: median (least-most). GB: largest resident memory,"
        " its / ours.",
    )


def scale_table(scale: Sequence[ScalePoint]) -> TextTable:
    """Lay out latency, throughput and memory along each axis."""
    rows = tuple(
        (
            point.axis,
            f"{point.value:g}",
            spread_ms(Spread(*(v / 1e3 for v in _values(point.latency_ms)))),
            f"{point.per_second:.3g}",
            ms(sum(point.stages_ms.get(name, 0.0) for name in ("frame", "squash", "fit"))),
            ms(sum(point.stages_ms.get(name, 0.0) for name in ("mask", "regions"))),
            ms(point.stages_ms[HOST_STAGE]) if HOST_STAGE in point.stages_ms else "-",
            f"{point.peak_rss_gb:.2f}",
        )
        for point in scale
    )
    return TextTable(
        "Scale",
        (
            "axis",
            "value",
            "latency, ms",
            "a second",
            "resize, ms",
            "mask, regions",
            "host, ms",
            "peak GB",
        ),
        rows,
    )


def growth_table(growth: Sequence[Growth]) -> TextTable:
    """Lay out how stages grow."""
    rows = tuple(
        (
            row.axis,
            row.stage,
            f"{row.exponent:.2f}",
            f"{row.allowed:.2f}",
            "FASTER THAN ITS WORK" if row.defect else "",
        )
        for row in growth
    )
    return TextTable(
        "Growth: time ~ value ^ exponent", ("axis", "stage", "exponent", "allowed", ""), rows
    )


def load_table(load: LoadTime) -> TextTable:
    """Lay out load to first result against plain sessions."""
    rows = (
        ("Inspector.load", spread_ms(load.load_ms, 1.0), ""),
        ("... of which digests of every file", spread_ms(load.digests_ms, 1.0), ""),
        ("load and first inspection", spread_ms(load.first_result_ms, 1.0), str(load.ratio_first)),
        ("plain sessions of the same files", spread_ms(load.plain_ms, 1.0), ""),
        ("plain sessions, one run of each", spread_ms(load.plain_first_ms, 1.0), "1"),
        ("Inspector.load over plain sessions", "", str(load.ratio)),
    )
    return TextTable("Load", ("", "ms", "ratio"), rows)


def goal_table(goals: Sequence[Goal]) -> TextTable:
    """Lay out what must be reached."""
    rows = tuple(
        (
            goal.goal,
            f"{'>=' if goal.at_least else '<='} {goal.limit:g}",
            f"{goal.value:.3g}",
            "met" if goal.met else "MISSED",
            goal.note,
        )
        for goal in goals
    )
    return TextTable("Goals", ("goal", "limit", "measured", "", ""), rows)


def comparison_table(comparison: Comparison) -> TextTable:
    """Lay out what moved, and how far figures may differ without meaning anything."""
    rows = tuple(
        (
            change.name,
            f"{change.old:.4g}",
            f"{change.new:.4g}",
            f"{100 * (change.new / change.old - 1):+.1f} %" if change.old else "",
            f"{change.noise:.2g}",
            _verdict(change),
        )
        for change in comparison.changes
    )
    note = "; ".join(difference.text for difference in comparison.differences)
    left = f" Not compared: {', '.join(comparison.left_out)}." if comparison.left_out else ""
    return TextTable(
        "Against the older report",
        ("figure", "old", "new", "change", "noise", ""),
        rows,
        (f"Differences: {note}." if note else "Same machine, models and versions.") + left,
    )


def _verdict(change: Change) -> str:
    if not change.moved:
        return "within noise"
    if change.worse:
        return "worse"
    return "worse, but not by the factor" if change.to_the_worse else "better"


def _both(its: float | None, ours: float | None) -> str:
    return "" if its is None or ours is None else f"{its:.1f} / {ours:.1f}"


def _values(value: Spread) -> tuple[float, float, float]:
    return value.middle, value.least, value.most
