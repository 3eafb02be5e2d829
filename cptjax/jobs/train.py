"""Continue (or start) training a model on a blend of texts, and leave a folder that explains itself."""

import contextlib
import json
import sys
from functools import partial
from typing import NoReturn

import jax

from cptjax.checkpoints.source import write_model_folder
from cptjax.checkpoints.store import CheckpointStore
from cptjax.configuration import resolved_config
from cptjax.data.batch import batch, documents_read
from cptjax.data.rows import RowReader
from cptjax.evaluation.domains import DomainLosses, as_metrics
from cptjax.evaluation.exams import in_training
from cptjax.evaluation.exams.in_training import ExamsInTraining
from cptjax.evaluation.generate import generate
from cptjax.evaluation.own_samples import Model
from cptjax.evaluation.result_row import as_json
from cptjax.evaluation.sequences import text_of
from cptjax.evaluation.table import EVALUATION
from cptjax.hosts.alone import together
from cptjax.hosts.worker import launched
from cptjax.models.flops import flops_per_token
from cptjax.reporting.folder import DATA, PLAN, PROFILE, RunFolder
from cptjax.reporting.goodput import STEPS, Goodput, describe_goodput
from cptjax.reporting.lines_by_step import SAMPLES, LinesByStep
from cptjax.reporting.metrics import MetricsWriter
from cptjax.reporting.progress import Progress
from cptjax.reporting.start_up import DATA as DATA_PHASE
from cptjax.reporting.start_up import EVALUATING, FIRST_STEP, IMPORTS, JOINING, WEIGHTS, StartUp, describe_start_up
from cptjax.reporting.steps import StepLog
from cptjax.sharding.batches import batches
from cptjax.sharding.mesh import describe_devices
from cptjax.sharding.peaks import peak_flops
from cptjax.sharding.processes import asked_by, join_processes
from cptjax.training.compilation import Compilation, keep_compiled
from cptjax.training.describe import describe_late_skips, describe_plan, describe_refused, describe_weights
from cptjax.training.plan import dry_plan, plan_run
from cptjax.training.profile import Profile
from cptjax.training.records import (
    checkpoint_metadata,
    data_record,
    lineage_at,
    passed_over,
    refuse_another_run,
    starting_verb,
)
from cptjax.training.run import Run
from cptjax.training.signals import Stopped, stop_at_once, stop_requests
from cptjax.training.start import starting_state
from cptjax.training.state import abstract_state, at_step


@together
def train(run: Run, exams: ExamsInTraining = ExamsInTraining(), dry_run: bool = False) -> None:
    """Trains `run` until its tokens have been read; the same command again goes on where it stopped.

    Every step is logged to metrics.jsonl and TensorBoard; each source's held-out loss and bits per byte are measured
    before, now and then, and after; so is what it answers in `exams`. SIGTERM and Ctrl-C save and end with exit code 75.

    Raises:
        ConfigurationError: what the run asks for cannot be, or another run is in its folder.
        Stopped: a signal came; everything is saved.
        CptjaxError: the loss is not finite, or a file is damaged or cannot be written.
    """
    if dry_run:
        asked = exams.opened()
        with dry_plan(run) as plan:
            refuse_another_run(plan, CheckpointStore(plan.folder.checkpoints))
            described = [*describe_plan(plan), *exams.describe(asked, plan.eval_steps)]
            print("\n".join([*described, *describe_weights(plan)]))
        return

    goodput, start_up = Goodput(RunFolder(run.output_dir)), StartUp(launched())
    start_up.done(IMPORTS)
    keep_compiled(run.compilation_cache)
    join_processes()
    start_up.done(JOINING)
    asked = exams.opened()
    # --- What there is and what will be read: worked out and printed before anything starts ---
    with stop_at_once():
        plan = plan_run(run)
    mesh, folder = plan.mesh, plan.folder
    store = CheckpointStore(folder.checkpoints, keep=run.keep)
    refuse_another_run(plan, store)
    start_up.done(DATA_PHASE)
    if (summary := folder.finished()) is not None:
        print(f"{folder.path} is finished ({summary['steps']:,} steps); nothing to do.")
        return
    first = jax.process_index() == 0
    progress = Progress(plan.steps, plan.batch_tokens, show=first)
    described = [*describe_plan(plan), *exams.describe(asked, plan.eval_steps)]
    for line in described:
        progress.say(line)

    # --- How the run starts: the rule is in training/start.py ---
    lock = folder.hold() if first else None  # until this process ends
    verb = starting_verb(plan, store)
    update = plan.update()
    abstract = abstract_state(plan.config, update, mesh)
    state, how = starting_state(run.start, plan.source, store, plan.config, update, abstract, mesh)
    begin = int(jax.block_until_ready(state)["step"])
    start_up.done(WEIGHTS)
    goodput.go_on_from(begin)
    if goodput.warning:
        progress.say(goodput.warning)
    passed = passed_over(store)
    if warning := describe_late_skips(run, begin, passed):
        progress.say(warning)
    progress.say(f"{how}: from step {begin:,}")
    if first:
        folder.start(resolved_config(), sys.argv, describe_devices(mesh.devices.flat))
        folder.write(PLAN, "\n".join(described) + "\n")
        folder.write(DATA, json.dumps(data_record(plan), indent=1, ensure_ascii=False) + "\n")
        if not plan.resumed:
            write_model_folder(folder.path, plan.original_config, plan.model_folder)

    # --- What a step is made of ---
    readers = {name: RowReader(plan.prepared[name].train) for name in plan.data.names}
    train_step = plan.train_step(abstract)
    domains = DomainLosses(plan.prepared, plan.config, run.numerics, mesh, plan.batch_rows // run.accumulation)
    examined = in_training.AsTrained(asked, exams.settings, plan.tokenizer, mesh)
    writer = MetricsWriter(folder.path, begin, write=first)
    devices = jax.local_devices()  # whose memory this process can ask about
    several = jax.process_count() > 1
    flops = flops_per_token(plan.config, plan.sequence_length).training * plan.batch_tokens
    log = StepLog(
        writer,
        progress,
        plan.batch_tokens,
        run.guard.patience,
        lambda steps: describe_refused(run, documents_read(readers, plan.data, steps), steps),
        flops / (peak * mesh.devices.size) if (peak := peak_flops(devices[0])) else None,
        devices,
        behind=devices[0].platform != "cpu",
    )

    def leave_if_asked() -> None:
        if stop and not several:  # several processes agree on a step, and an evaluation is none
            raise _Interrupted

    @goodput.measure("evaluating")
    def evaluate(step: int) -> dict[str, float]:
        log.pause()
        try:
            measured = as_metrics(losses := domains.evaluate(state["params"], leave_if_asked))
            of_average = as_metrics(domains.evaluate(state["average"], leave_if_asked)) if "average" in state else {}
            model = Model(state["params"], plan.config, run.numerics)
            now = in_training.AtStep(step, lineage_at(plan, verb, step, passed).tokens) if asked else None
            answered = examined.rows(model, now, leave_if_asked)
        except _Interrupted:
            leave(step)
        if of_average:
            measured |= {name.replace("validation/", "validation_of_average/"): x for name, x in of_average.items()}
        measured |= in_training.as_metrics(answered)
        writer.log(step, measured)
        if asked:
            exam_log.log(step, [as_json(row) for row in answered])
        for name, found in losses.items():
            progress.say(f"step {step:,}  {name}: {found.loss:.4f} nats/token, {found.bits_per_byte:.4f} bits/byte")
        for line in in_training.as_lines(answered):
            progress.say(f"step {step:,}  {line}")
        return measured

    sample_log = LinesByStep(folder.path / SAMPLES, begin, write=first)
    exam_log = LinesByStep(folder.path / EVALUATION, begin, write=first)

    @goodput.measure("evaluating")
    def sample(step: int) -> None:
        log.pause()
        new, eos = run.samples.max_new_tokens, plan.tokenizer.eos
        given = (state["params"], plan.config, run.numerics, mesh, plan.sample_prompts)
        texts = generate(*given, new, temperature=0, eos=eos)
        lines = [
            {"prompt": prompt, "text": text_of(tokens, plan.tokenizer), "tokens": tokens}
            for prompt, tokens in zip(run.samples.prompts, texts, strict=True)
        ]
        sample_log.log(step, lines)
        for line in lines:
            progress.say(f"step {step:,}  sample: {line['text']!r}")

    @goodput.measure("saving")
    def save(step: int) -> None:
        log.pause()
        writer.flush()
        store.save(step, state, checkpoint_metadata(plan, verb, step, passed))
        if first:
            goodput.write(step)

    def leave(step: int) -> NoReturn:
        if step > begin:  # what this start began with is saved already, or is where the run begins
            save(step)
        by = stop.signal or "a signal to another process"
        raise Stopped(f"stopped by {by} after step {step:,}; all is saved. Run the same command again.")

    # --- The loop ---
    measured = {}
    with (
        stop_requests() as stop,  # the outermost: a signal does not end the wait for the last save either
        store,
        jax.set_mesh(mesh),
        contextlib.closing(writer),
        contextlib.closing(progress),
        contextlib.closing(Profile(run.profile_steps, folder.path / PROFILE)) as profile,
    ):
        if begin % plan.eval_steps == 0 or begin == plan.steps:  # a line that is there already is not written twice
            measured = evaluate(begin)
        if plan.samples_at(begin) and not sample_log.has(begin):
            sample(begin)
        steps = [step for step in range(begin, plan.steps) if not run.passes_over(step)]
        reading = batches(partial(batch, readers, plan.data), steps, plan.batch_rows, mesh)
        log.resume()
        start_up.done(EVALUATING)
        compilation = Compilation()
        for step in range(begin, plan.steps):
            if run.passes_over(step):
                state = at_step(state, step + 1, abstract)
                passed.append(step)
                log.passed_over(step + 1)
            else:
                goodput.turn("waiting for rows")
                _, rows = next(reading)
                goodput.turn("compiling" if step == steps[0] else STEPS)
                profile.before(step)
                rows |= {"stop": asked_by(mesh, bool(stop))} if several else {}
                state, metrics = train_step(state, rows)
                if step == steps[0]:
                    jax.block_until_ready(metrics)
                    goodput.turn(STEPS)
                    compilation.stop()
                    start_up.compiled(compilation.cache, compilation.ended)
                    start_up.done(FIRST_STEP)
                    goodput.started(start_up.record())
                    progress.say(f"start-up {describe_start_up(start_up.record())}")
                log.push(step + 1, metrics)
                if (traced := profile.after(step, metrics)) is not None:
                    progress.say(traced)
            done = step + 1
            ended = done == plan.steps
            if (log.stop_asked if several else stop) and not ended:  # whoever sent it may not wait for an evaluation
                leave(done)
            if first:
                goodput.at(done)
            if done % plan.eval_steps == 0 or ended:
                measured = evaluate(done)
                log.resume()
            if plan.samples_at(done):
                sample(done)
                log.resume()
            if done % plan.save_steps == 0 or ended:
                save(done)
                log.resume()

    # --- A folder that explains itself ---
    if first:
        goodput.write(plan.steps)
        summary = goodput.summary()
        progress.say(describe_goodput(summary))
        folder.finish(
            {
                "job": "train",
                "steps": plan.steps,
                "tokens": (plan.steps - len(passed)) * plan.batch_tokens,
                "goodput": summary["goodput"],
                "start_up": start_up.record(),
                **measured,
            }
        )
        _write_report(folder, progress)
    progress.say(f"done: {folder.path}")
    if lock is not None:
        lock.close()


class _Interrupted(Exception):
    """An evaluation is left because a signal came."""


def _write_report(folder: RunFolder, progress: Progress) -> None:
    """The run's page. The run is done and saved: whatever is wrong with the page must not make a failure of it."""
    try:
        from cptjax.reporting.report import write_run_report  # matplotlib and jinja2, only now

        progress.say(f"wrote {write_run_report(folder.path)}")
    except Exception as error:
        progress.say(
            f"warning: report.html was not written: {type(error).__name__}: {error}\n"
            f"  The run is complete; the job `report` (gin/jobs/report.gin) draws its page."
        )
