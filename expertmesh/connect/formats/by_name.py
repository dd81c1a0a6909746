"""Which formats are there, by the names that records have for them?"""

from expertmesh.connect.formats.format import Format
from expertmesh.connect.formats.json_text import JsonText
from expertmesh.connect.formats.toml_text import TomlText
from expertmesh.connect.formats.yaml_items import YamlItems
from expertmesh.connect.formats.yaml_text import YamlText

FORMATS: dict[str, Format] = {
    "json": JsonText(),
    "toml": TomlText(),
    "yaml": YamlText(),
    "yaml-items": YamlItems(),
}


def name_of(kind: Format) -> str:
    """Its name. Raises KeyError for one that has none."""
    return {type(known): name for name, known in FORMATS.items()}[type(kind)]
