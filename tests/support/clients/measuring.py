"""How are the tools that measure a served model run on a few questions?"""

import json
from pathlib import Path
from typing import Any

from tests.support.clients import environments
from tests.support.clients.programs import printed
from tests.support.clients.sdks import Place

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def lm_eval(
    home: Path,
    task: dict[str, Any],
    questions: list[dict[str, Any]],
    kind: str,
    arguments: dict[str, str],
    *flags: str,
) -> dict[str, float]:
    """The scores of lm-eval's model of this kind, with these arguments."""
    data = home / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, questions)))
    files = {"data_files": {"test": str(data)}}
    whole = {"task": "own", "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
    (home / "own.yaml").write_text(json.dumps({**whole, **task}))
    python = environments.python("lm-eval", "lm-eval[api]==0.4.13", "transformers==5.17.0")
    pairs = ",".join(f"{name}={value}" for name, value in arguments.items())
    command = [str(python.with_name("lm_eval")), "run", "--model", kind, "--model_args", pairs]
    printed(
        [*command, "--tasks", "own", "--include_path", str(home), "--output_path", "out", *flags],
        home,
        {"OPENAI_API_KEY": "any", **OFFLINE},
    )
    (results,) = (home / "out").rglob("results_*.json")
    scores: dict[str, float] = json.loads(results.read_text())["results"]["own"]
    return scores


def guidellm(place: Place, home: Path, tokenizer: Path) -> dict[str, int]:
    """How three requests ended that GuideLLM sent one after another."""
    python = environments.python("guidellm", "guidellm==0.8.1")
    command = [
        *(str(python.with_name("guidellm")), "run"),
        *("--backend", f"kind=openai_http,target={place.url},model={place.model}"),
        *("--profile", "kind=synchronous", "--constraint", "kind=max_requests,count=3"),
        *("--tokenizer", f"kind=hf_auto,model={tokenizer}"),
        *("--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=16"),
        *("--output", "kind=json,path=report.json", "--disable-console"),
    ]
    printed(command, home, OFFLINE)
    (benchmark,) = json.loads((home / "report.json").read_text())["benchmarks"]
    ended: dict[str, int] = benchmark["metrics"]["request_totals"]
    return ended
