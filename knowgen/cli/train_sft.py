"""`knowgen train sft`: fine-tune a policy on conversations."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  knowgen train sft --config sft/one-gpu-lora model.path=Qwen/Qwen3-VL-8B-Instruct \\
      "sft.conversations=[{path: gen_searcher_sft}]"
  knowgen train sft --config my.yaml optimizer.learning_rate=2e-5 -o reports/sft
On several GPUs: accelerate launch --config_file FILE -m knowgen train sft …
The same command continues a training that ended early; --fresh starts again.
"""


@click.command("sft", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option(
    "--config", "config_name", required=True, metavar="FILE|NAME", help="YAML file, or a bundled configuration."
)
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Directory [reports/train__NAME].")
@click.option("--fresh", is_flag=True, help="Remove an earlier training in the directory first.")
def command(config_name: str, values: tuple[str, ...], out: Path | None, *, fresh: bool) -> int:
    """Fine-tune a policy on conversations, with the renderer that the agent runs it with.

    Trained are replies alone. The result is a model for the policy `hf:` and for vLLM.
    """
    from knowgen.cli.common import command_line, resume_command
    from knowgen.core.text import count
    from knowgen.training.config import load_config
    from knowgen.workflows.fine_tuning import fine_tune

    folder = out or Path("reports") / f"train__{Path(config_name).with_suffix('').as_posix().replace('/', '-')}"
    config = load_config(config_name, list(values))
    result = fine_tune(config, folder, name=config_name, fresh=fresh, report=lambda line: click.echo(line, err=True))
    if not result.main:
        return 0 if not result.stopped else 130
    for line in result.left_out[:3]:
        click.echo(f"left out  {line}", err=True)
    if result.stopped:
        click.echo(f"{result.stopped} after {count(result.steps, 'step')}; the checkpoint is kept", err=True)
        click.echo(f"resume   {resume_command()}")
        return 130
    used = f"{count(result.used, 'conversation')}, {len(result.left_out)} left out; " if result.used else "complete; "
    click.echo(f"{used}{count(result.steps, 'step')} in {folder}")
    click.echo(f"model    {result.weights}")
    click.echo(f"try      {command_line('agent', 'PROMPT', '--policy', f'hf:{result.weights}')}")
    return 0
