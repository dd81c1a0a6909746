"""Which EXPERTMESH_* variables exist, and which one was a misspelt one meant to be?

Every process checks its environment, so the names of all services, all commands and everything
else are listed here, where all of them may import. A test compares the lists with the flags.
"""

import difflib
from collections.abc import Iterable, Mapping

PREFIX = "EXPERTMESH_"
SHOWN = 5
_LIKE, _LIKE_WITH_A_WORD = 0.6, 0.4
"""Least likeness (difflib's ratio) of a name that is suggested."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SERVICES = _names(
    """
    ADOPT_MS ADVERTISE ALLOWED_HOST ANY_MODEL_NAME API_KEY API_KEY_FILE ATTENTION ATTENTION_ID
    CANARY_S
    CHECKPOINT_ID CORS_ORIGIN DEVICE DRAIN_S DTYPE EXPERTS EXPERTS_PER_S EXPERT_DTYPE
    EXPERT_TIMEOUT_S FOLLOW_LOAD FORCED_CALL_TOKENS GPU_MEMORY GRACE_S HALF_LIFE_S IMBALANCE
    IMBALANCE_S INSECURE INSECURE_NO_AUTH KV_DTYPE KV_HOST_MEMORY KV_MEMORY LAYERS LEASE_MS
    LINEAR_DTYPE LISTEN
    LOAD LOG_LEVEL
    MAX_BATCH_TOKENS MAX_CONCURRENT MAX_CONNECTIONS MAX_CONNECTIONS_PER_ADDRESS MAX_MEMBERS
    MAX_MODEL_LEN MAX_MOVES MAX_RUNNING MAX_WAITING MAX_WAITING_TOKENS MEMBER_NETWORK MEMORY
    MIN_GAIN MODEL NO_PREFIX_CACHE OPS_HOST OPS_LISTEN PIECES_PER_MINUTE PLAN_DELAY_MS POOL_ID
    REASONING_KEY_FILE REFLECTION REPLICAS REQUEST_TIMEOUT_S RESPONSE_STORE RESPONSE_STORE_SIZE
    RESPONSE_STORE_URL_FILE RESPONSE_TTL_S RESTORE_THINKING ROUTER SAME_NUMERICS SECRET_FILE
    SERVED_MODEL_NAME SETTLE_MS STALL_S STATE STRIPING THREADS TLS_CA TLS_CERT TLS_KEY TRANSPORT
    UNREADABLE
    """
)
"""Variables of the services' flags, and so of `expertmesh up`'s."""

COMMANDS = _names(
    """
    ABOUT ALLOW_HOST APPROVE ASK ATTENTION_DEVICE ATTENTION_GPU_MEMORY ATTENTION_GRACE_S
    ATTENTION_LOAD ATTENTION_OPS_HOST ATTENTION_REFLECTION ATTENTION_REQUEST_TIMEOUT_S
    BANDWIDTH BASE_URL BATCH BURSTINESS CHECK COLUMN CONNECT_DIR CONNECT_TIMEOUT CONTEXT
    DATASET DATA_PROFILE DAYS DELIMITER DETACH DEV_SANDBOX DEV_TESTS_OUT DIFF DIR DOWN_TIMEOUT
    DRAIN_TIMEOUT DRY_RUN ENCODING ENDPOINT EXACT EXPERT_DEVICE EXPERT_GPU_MEMORY
    EXPERT_GRACE_S EXPERT_LOAD EXPERT_OPS_HOST EXPERT_REFLECTION FAIL_ON FOCUS FORCE FORMAT
    FUNCTION GATEWAY_REQUEST_TIMEOUT_S GITHUB GOODPUT GPUS GPU_MEMORY_GB HINT HOME HOST
    HTTP_PORT IGNORE_EOS IN_PROCESS I_KNOW JSON KEEP KEY_ENV LANGUAGE LEVEL LINEAR_FORMAT
    MANIFEST MAX_CONCURRENCY MAX_MIB MAX_NUM_SEQS MAX_STEPS MAX_TOKENS MCP MEMBER MODEL_NAME
    MODEL_OUT MULTI_TURN MUTANTS NUMBER NUM_PROMPTS OFFLINE OUT OUTPUT_LEN PERCENTILES
    PLAN_MEMORY PLAN_PLOT PLAN_POOLS PLAN_REPLICAS PLOT PNG POOLS POOL_LAYERS POSITIONS
    PULL_ATTENTION QUANTISE_FORMAT RANDOM_INPUT_LEN RANDOM_OUTPUT_LEN RANDOM_PREFIX_LEN
    RANDOM_RANGE_RATIO RECORD_ATTENTION RECORD_OUT REMOVE REPLAY REQUEST_RATE RESUME RETRIEVE
    REVISION ROOT ROUNDS ROUND_TRIP_MS ROUTER_OPS_HOST ROUTER_REFLECTION ROWS RUN_DIR SANDBOX
    SCRIPT_MIB SCRIPT_S SEARCH SECONDS SEED START_TIMEOUT STEPS STREAMS SYSTEM TEMPERATURE
    THINKING TOOLS TURNS UNDO UP_ATTENTION WAIT WARMUP WEB WITHIN WRITE WRITE_KEY
    WRITE_MANIFEST
    """
)
"""Variables of the commands' own options, including those that `up` passes to one service."""

OTHERS = _names(
    """
    NATIVE CPU_ISA CPU_KERNELS_PATH RESPONSE_STORE_URL
    HTTP IMAGE POOL_MEMORY
    TEST_CLIENTS CLIENTS TEST_COMPOSE COMPOSE_WORK M2_CHAT_DATA OWN_NETWORK FAIL
    """
)
"""Variables without a flag: for native code, a secret, deploy/compose.yaml and tests."""

KNOWN = SERVICES | COMMANDS | OTHERS


def nearest(name: str, known: Iterable[str] = KNOWN) -> list[str]:
    """The names that it may have been meant to be, without prefix, best first: those that share a
    word with it, or if there are none, those with a similar spelling."""
    words = set(name.split("_"))
    sharing = [one for one in known if words & set(one.split("_"))]
    likeness = {one: difflib.SequenceMatcher(None, name, one).ratio() for one in sharing or known}
    least = _LIKE_WITH_A_WORD if sharing else _LIKE
    near = [one for one, ratio in likeness.items() if ratio >= least]
    return sorted(near, key=lambda one: (-likeness[one], one))[:3]


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """EXPERTMESH_* names in the environment that nothing reads, sorted."""
    return sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in KNOWN
    )


def unknown_names_warning(environ: Mapping[str, str]) -> str | None:
    """One line with the unknown names and suggestions; None when all names are known."""
    unknown = unknown_names(environ)
    if not unknown:
        return None
    told = []
    for name in unknown[:SHOWN]:
        near = " or ".join(PREFIX + one for one in nearest(name.removeprefix(PREFIX)))
        # A value from the environment must not put control characters into a log or terminal.
        shown = ascii(name[:80])[1:-1]
        told.append(f"{shown} (did you mean {near}?)" if near else shown)
    if len(unknown) > SHOWN:
        told.append(f"{len(unknown) - SHOWN} more")
    return f"nothing reads {', '.join(told)}"
