"""Which bytes does a byte-level BPE token stand for?

Source: the reversible byte alphabet of GPT-2's tokenizer. Printable bytes keep their own
character; the others take the code points from 256 upwards, in order.
"""


def _alphabet() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    characters = {byte: chr(byte) for byte in printable}
    characters.update({byte: chr(256 + rank) for rank, byte in enumerate(others)})
    return characters


CHARACTER_OF_BYTE = _alphabet()
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


def token_bytes(token: str) -> bytes:
    """Bytes of a vocabulary entry; one with a foreign character stands for its own UTF-8."""
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        return token.encode("utf-8", errors="replace")
