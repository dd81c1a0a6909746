"""The house rules that a machine can check: import directions, forbidden calls, file sizes."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tests.support.syntax import nodes, parse, strings

SERVICES = ("gateway", "attention_svc", "expert_svc", "router_svc")
ALLOWED: dict[str, set[str]] = {
    "protos": set(),
    "rpc": {"protos"},
    "moe_model": {"protos"},
    **{service: {"rpc", "moe_model", "protos"} for service in SERVICES},
    "expertmesh": {"protos", "rpc", "moe_model", *SERVICES},
    "demo_model": {"moe_model", "expertmesh"},
}
"""Package -> the other packages of this house that it may import (CONTRIBUTING.md)."""

FLOORS: dict[str, tuple[str, ...]] = {
    "rpc": (
        "config logs watched metrics cancellation loop_failures", "access", "channel errors",
        "fair_shares hop mesh", "process",
    ),
    "moe_model": (
        "config_values json_files", "config shapes numerics quant host_memory gpus device_failures",
        "text cost formats moved workspace", "chat maths memory_need",
        "families kernels", "backends", "weights", "reference tiny",
    ),
    "gateway": (
        "errors limits api_keys", "config metrics text store", "status_line generate", "http",
        "shapes", "openai anthropic responses ollama sglang", "app", "service", "__main__",
    ),
    "attention_svc": (
        "config vocabulary activations", "metrics grammar", "sequence experts", "kv sampling",
        "engine",
        "membership servicer loaded", "reporting running", "service", "__main__",
    ),
    "router_svc": (
        "members streams", "placement", "config topology_book", "mesh", "status publisher",
        "metrics", "joining",
        "servicer", "service", "__main__",
    ),
    "expertmesh": (
        "console help_pages issuing inputs outputs check state_root", "progress certs cluster",
        "gpu_checks clients",
        "agent connect",
        "doctor hub offline",
        "sampling_params loadgen",
        "forecasting assistants", "commands", "cli", "__main__",
    ),
}  # fmt: skip
"""Package -> its wings and files, floor by floor. Each imports only from floors below its own."""

OF_NO_WING = {"unit": {"documents", "support"}, "contract": {"services"}}
"""Test folders that mirror none of the product: documents, the tests' own tools, all services."""

SERVING = ("protos", "rpc", "moe_model", *SERVICES, "expertmesh")
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {("torch", "load"), ("torch", "save"), ("numpy", "load"), ("np", "load")}
TORCH_FREE = (
    *("gateway", "router_svc", "rpc.process.server"),
    *("moe_model.config", "moe_model.text", "moe_model.chat", "moe_model.families"),
    *("moe_model.formats", "moe_model.weights.held_formats", "moe_model.weights.load_flag"),
    *("moe_model.gpus", "moe_model.memory_need", "moe_model.workspace"),
    *("moe_model.weights.place",),
)
CLIENT_LIBRARIES = {
    *("openai", "anthropic", "vllm", "sglang", "transformers", "torch", "numpy", "tokenizers"),
    *("safetensors", "huggingface_hub", "litellm", "langchain", "langchain_core", "llama_index"),
    *("google", "grpc", "model", "models", "utils", "common", "tests", "bench", "examples"),
}
"""Top-level names beside which this package is likely to be installed, and such as many ship."""
MAX_LINES = 400


def sources(package: str) -> list[Path]:
    return [path for path in sorted((ROOT / package).rglob("*.py")) if "_pb2" not in path.name]


def all_sources() -> list[Path]:
    folders = (*ALLOWED, "bench", "examples", "tests")
    return [path for folder in folders for path in sources(folder)]


def imported_modules(path: Path) -> Iterator[tuple[str, int]]:
    """(absolute module name, line) of every import, at any depth."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module, node.lineno
            if node.module.startswith("tests"):  # `from tests.unit import test_this`
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_downhill_only(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(package)
        for module, line in imported_modules(path)
        if (top := module.partition(".")[0]) in ALLOWED
        and top != package
        and top not in ALLOWED[package]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", FLOORS)
def test_wings_import_from_the_floors_below_only(package: str) -> None:
    floor_of = {
        wing: level for level, wings in enumerate(FLOORS[package]) for wing in wings.split()
    }
    wrong = []
    for path in sources(package):
        wing = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if wing == "__init__":
            continue
        assert wing in floor_of, f"{package}: on which floor is {wing}?"
        for module, line in imported_modules(path):
            top, _, rest = module.partition(".")
            other = rest.partition(".")[0]
            if top == package and other not in ("", wing) and floor_of[other] >= floor_of[wing]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_the_agent_works_against_any_server() -> None:
    """It knows the commands' clients and consoles, and neither services nor models."""
    own = ("agent", "clients", "console", "outputs", "state_root")
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources("expertmesh/agent")
        for module, line in imported_modules(path)
        if module.partition(".")[0] in ALLOWED and module.split(".")[:2][-1] not in own
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ["attention_svc", "expert_svc"])
def test_services_ask_a_backend_and_import_no_kernel(package: str) -> None:
    """Differences between devices and kernels are behind moe_model/backends/backend.py."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(package)
        for module, line in imported_modules(path)
        if module.startswith("moe_model.kernels")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", [*ALLOWED, "bench", "tests"])
def test_no_relative_imports(package: str) -> None:
    """Absolute names only: a reader sees from each line which package is meant."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(package)
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not wrong, "\n".join(wrong)


def test_test_modules_hold_tests_and_nobody_imports_them() -> None:
    """What several tests share is in tests/support/, the only folder with other modules."""
    wrong = [
        f"{path.relative_to(ROOT)} belongs in tests/support/"
        for path in sources("tests")
        if path.relative_to(ROOT).parts[1] != "support"
        and not re.fullmatch(r"test_\w+|conftest|__init__", path.stem)
    ]
    for folder in ("bench", "tests"):
        for path in sources(folder):
            wrong += [
                f"{path.relative_to(ROOT)}:{line} imports {module}"
                for module, line in imported_modules(path)
                if re.search(r"\b(test_\w+|conftest)$", module)
            ]
    assert not wrong, "\n".join(wrong)


def test_each_test_folder_is_a_package_and_mirrors_a_wing() -> None:
    folders = {path.parent for path in sources("tests")} - {ROOT / "tests/support/vllm_scripts"}
    wrong = [
        f"{path} has no __init__.py" for path in folders if not (path / "__init__.py").exists()
    ]
    for suite, of_no_wing in OF_NO_WING.items():
        root = ROOT / "tests" / suite
        wings = {path.relative_to(root) for path in folders if path.is_relative_to(root)}
        wrong += [
            f"tests/{suite}/{wing} mirrors no folder of the product"
            for wing in wings
            if str(wing) not in of_no_wing and not (ROOT / wing).is_dir()
        ]
    assert not wrong, "\n".join(wrong)


def test_examples_use_only_the_stubs_and_the_public_package() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources("examples")
        for module, line in imported_modules(path)
        if module.partition(".")[0] in set(ALLOWED) - {"protos"} and module != "expertmesh"
    ]
    assert not wrong, "\n".join(wrong)


def modules_of(name: str) -> list[str]:
    """The module, or with the package every module in it, since an import may be in any."""
    path = ROOT / name.replace(".", "/")
    if not path.is_dir():
        return [name]
    files = [one for one in sources(name.replace(".", "/")) if one.name != "__init__.py"]
    return [name, *(".".join(one.relative_to(ROOT).with_suffix("").parts) for one in files)]


def test_the_edge_and_the_map_never_import_torch() -> None:
    modules = [module for name in TORCH_FREE for module in modules_of(name)]
    assert len(modules) > 100
    script = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'{name} imports torch'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("package", SERVING)
def test_no_code_or_objects_from_data(package: str) -> None:
    """No pickle and its kin, no eval, exec or torch.load in what serves."""
    wrong = []
    for path in sources(package):
        where = path.relative_to(ROOT)
        wrong += [
            f"{where}:{line} imports {module}"
            for module, line in imported_modules(path)
            if module.partition(".")[0] in FORBIDDEN_MODULES
        ]
        for node in nodes(path):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            if isinstance(function, ast.Name) and function.id in FORBIDDEN_BUILTINS:
                wrong.append(f"{where}:{node.lineno} calls {function.id}")
            if (
                isinstance(function, ast.Attribute)
                and isinstance(function.value, ast.Name)
                and (function.value.id, function.attr) in FORBIDDEN_ATTRIBUTES
            ):
                wrong.append(f"{where}:{node.lineno} calls {function.value.id}.{function.attr}")
    assert not wrong, "\n".join(wrong)


FORKS_FOR = {"preexec_fn", "user", "group", "extra_groups", "umask"}
STARTS = {"Popen", "run", "call", "check_call", "check_output"} | {
    f"create_subprocess_{kind}" for kind in ("exec", "shell")
}


def test_no_child_is_forked_where_libraries_have_threads() -> None:
    """With these options subprocess forks where it otherwise calls vfork, and in a fork's child
    run the handlers that libraries have registered: of gRPC a poller, which some children die of.
    """
    wrong = []
    for path in all_sources():
        for node in nodes(path):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            options = {keyword.arg for keyword in node.keywords} & FORKS_FOR
            if node.func.attr in STARTS and options:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} forks for {options}")
    assert not wrong, "\n".join(wrong)


FAMILY_TABLE = "moe_model/families/known.py"
FAMILY_KEYS = (
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "num_local_experts"),
    *("num_experts_per_tok", "intermediate_size", "scoring_func", "qk_norm_type", "hidden_act"),
    *("tie_word_embeddings", "attn_type_list", "rope_parameters", "partial_rotary_factor"),
    *("quantization_config", "weight_block_size", "torch_dtype", "minimax_m2"),
)
FAMILY_FRAGMENTS = (
    *("block_sparse_moe", "e_score_correction_bias", "self_attn", "_proj", "_layernorm"),
    *("model.layers", "model.norm", "embed_tokens", "lm_head.weight", "_scale_inv", "rotary_emb"),
    *("minimax:", "<invoke", "</parameter", "]~b]", "]~!b[", "[e~["),
)


def families_words(text: str) -> list[str]:
    words = set(re.findall(r"\w+", text))
    return [key for key in FAMILY_KEYS if key in words] + [
        fragment for fragment in FAMILY_FRAGMENTS if fragment in text
    ]


@pytest.mark.parametrize("package", SERVING)
def test_only_the_table_knows_a_family_by_name(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(package)
        for module, line in imported_modules(path)
        if module.startswith("moe_model.families.minimax_m2")
        and str(path.relative_to(ROOT)) != FAMILY_TABLE
        and "minimax_m2" not in path.parts
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", SERVING)
def test_no_code_outside_a_family_names_its_keys_tensors_or_tags(package: str) -> None:
    """demo_model is not asked: it is one checkpoint of M2's family, and its trainer."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line} has {word!r}"
        for path in sources(package)
        if "minimax_m2" not in path.parts and str(path.relative_to(ROOT)) != FAMILY_TABLE
        for text, line in strings(path, docstrings=True)
        for word in families_words(text)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_word_that_is_looked_for_is_the_familys() -> None:
    """So that the test above cannot pass by a list that has grown old."""
    own = [text for path in sources("moe_model/families/minimax_m2") for text, _ in strings(path)]
    found = {word for text in own for word in families_words(text)}
    assert found == {*FAMILY_KEYS, *FAMILY_FRAGMENTS}


def test_files_stay_readable() -> None:
    too_long = [
        f"{path.relative_to(ROOT)}: {lines} lines (at most {MAX_LINES})"
        for path in all_sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    ]
    assert not too_long, "\n".join(too_long)


@pytest.mark.parametrize("package", SERVING)
def test_every_module_says_what_it_is_for(package: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(package)
        if not ast.get_docstring(parse(path))
    ]
    assert not silent, silent


def test_metrics_are_made_in_one_way() -> None:
    """By `Collectors`, with their names in full: a search for a name finds where it is made."""
    made = re.compile(r"\b(Counter|Gauge|Histogram|Summary|Info)\((?!\))[^)]*registry=")
    others = [
        str(path.relative_to(ROOT))
        for package in SERVING
        for path in sources(package)
        if made.search(path.read_text(encoding="utf-8")) and path != ROOT / "rpc" / "metrics.py"
    ]
    assert others == []


def packages_to_install() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return set(project["tool"]["setuptools"]["packages"])


def test_every_python_package_is_listed_for_installation() -> None:
    """A package missing from pyproject's list works from the source tree but is not installed."""
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in (*SERVING, "demo_model")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert found == packages_to_install()


def test_the_wheel_overwrites_no_file_of_another_library() -> None:
    """Its top-level names are these and no other installed distribution has one of them."""
    top_level = {name.partition(".")[0] for name in packages_to_install()}
    assert top_level == set(ALLOWED)
    assert not top_level & CLIENT_LIBRARIES
    owners = importlib.metadata.packages_distributions()
    shared = {name: owners[name] for name in top_level & owners.keys()}
    assert all(set(names) == {"expertmesh"} for names in shared.values()), shared
