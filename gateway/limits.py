"""How much may one request ask for? The one table; everything here is checked before allocation.

`docs/limits.md` says of each what happens beyond it; a test compares the two.
"""

from dataclasses import dataclass

from protos.sampling_ranges import MAX_ALLOWED_TOKEN_IDS, MAX_LOGIT_BIAS, MAX_TOP_LOGPROBS
from rpc.config import MAX_GRAMMAR_BYTES


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the HTTP edge. Sizes in bytes, lengths of text in characters, times in seconds."""

    # HTTP
    body_bytes: int = 16 * 1024 * 1024
    header_bytes: int = 16 * 1024
    max_connections: int = 1024
    max_connections_per_address: int = 768
    probe_connections: int = 128
    """Connections beyond the caps, on which only probes are answered."""
    probe_header_s: float = 2.0
    """A connection beyond the caps must send its request within this time."""
    linger_s: float = 2.0
    """How long the rest of a body may arrive after the answer, and again after the close."""
    linger_bytes: int = 64 * 1024 * 1024
    header_timeout_s: float = 15.0
    body_idle_s: float = 15.0
    """Longest pause within a body, and the time that a body of any size may take."""
    body_bytes_per_s: int = 1024
    """A body may take a second more each time that this many bytes have arrived."""
    body_total_s: float = 300.0
    write_timeout_s: float = 60.0
    """A client that leaves the outgoing buffer full for this long is cut off."""
    tiny_chunks: int = 1024
    """A body in more chunks than this must have `tiny_chunk_bytes` in each on average."""
    tiny_chunk_bytes: int = 16

    # JSON
    json_depth: int = 128
    """Of a body; enough for a tool's arguments to come back as deep as they were sent out."""
    json_items: int = 100_000
    """Strings, objects, arrays and long numbers in one body."""
    json_values: int = 1_000_000
    """Values of every kind: mostly token ids."""
    json_number_chars: int = 40
    json_inline_bytes: int = 256 * 1024
    """Larger bodies are checked in a thread."""

    # Requests
    concurrent_per_key: int = 64
    messages: int = 4096
    prompts: int = 128
    choices: int = 8
    """`n`."""
    streams: int = 128
    """Prompts times `n` of one completions request."""
    tools: int = 128
    schema_depth: int = 32
    schema_bytes: int = 128 * 1024
    """Of `response_format` or `structured_outputs`; tools have `MAX_TOOLS_BYTES` together."""
    pattern_chars: int = 32 * 1024
    """Of `structured_outputs.regex`."""
    answer_choices: int = 1000
    """Of `structured_outputs.choice`; their text counts towards `grammar_bytes`."""
    grammar_bytes: int = MAX_GRAMMAR_BYTES
    """Of the grammar that any of these becomes; the attention service has the same limit."""
    stops: int = 4
    stop_chars: int = 256
    stop_token_ids: int = 32
    logit_bias: int = MAX_LOGIT_BIAS
    allowed_token_ids: int = MAX_ALLOWED_TOKEN_IDS
    bad_words: int = 64
    bad_word_chars: int = 64
    """Of each; all together are tokenised on the event loop."""
    top_logprobs: int = MAX_TOP_LOGPROBS
    prompt_logprobs: int = 1_000_000
    """Log-probabilities of prompt tokens, alternatives included, when `echo` asks for them."""
    cache_salt_chars: int = 256
    background_per_key: int = 16
    """Responses that are made while nobody waits."""
    background_event_bytes: int = 8 * 1024 * 1024
    """Newest events of one of them, for a client that comes back to its stream."""
    ended_event_bytes: int = 32 * 1024 * 1024
    """The same of all that have ended, the oldest of which are forgotten first."""
    chain_entries: int = 1024
    """Stored answers before a request, or items of its conversation."""
    chain_bytes: int = 16 * 1024 * 1024
    """Of what these hold."""

    # Work off the event loop
    tokenise_inline_chars: int = 4096
    tokenise_timeout_s: float = 30.0
    tokenise_threads: int = 2
    """One client may use all but one of them."""
    tokenise_queue: int = 128
    emitted_ids_bytes: int = 32 * 1024 * 1024
    """Ids of answers, kept so that an answer that comes back gets the same ones."""
    returned_thinking_bytes: int = 16 * 1024 * 1024
    """Thinking before tool calls, kept for clients that send the calls back without it."""

    # Streams
    keepalive_s: float = 10.0
    early_error_wait_s: float = 2.0
    """How long a stream's headers wait for its first event or a refusal, which can then have a
    status. Not above `keepalive_s`: clients that limit silence wait for the headers as well."""
    grammar_error_wait_s: float = 6.0
    """The same for requests with a grammar, which is compiled first."""
    queued_events: int = 64
    """Events of one response that wait for its client; beyond that the attention service waits."""
