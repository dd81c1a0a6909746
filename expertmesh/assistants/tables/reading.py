"""How does a script read a file, in Python? With the encoding and delimiter that were found."""

from expertmesh.assistants.tables.source import Facts


def reading(facts: Facts, name: str, has_pandas: bool) -> str:
    """One statement or two for `name`, which is in the script's folder."""
    if has_pandas and facts.rows_key is None:
        return f"import pandas as pd\ndf = {_by_pandas(facts, name)}"
    opened = f"open({name!r}, encoding={facts.encoding!r}{_errors(facts)}, newline='')"
    if facts.format in ("CSV", "TSV"):
        delimiter = f", delimiter={facts.delimiter!r}" if facts.delimiter != "," else ""
        kind = "DictReader" if facts.has_header else "reader"
        return f"import csv\nrows = list(csv.{kind}({opened}{delimiter}))"
    if facts.format == "JSON lines":
        return f"import json\nrows = [json.loads(line) for line in {opened} if line.strip()]"
    if facts.format == "JSON":
        key = f"[{facts.rows_key!r}]" if facts.rows_key is not None else ""
        return f"import json\nrows = json.load({opened}){key}"
    if facts.format == "Parquet":
        return f"import pyarrow.parquet\nrows = pyarrow.parquet.read_table({name!r}).to_pylist()"
    return f"import openpyxl\nrows = list(openpyxl.load_workbook({name!r}).active.values)"


def _by_pandas(facts: Facts, name: str) -> str:
    encoded = "" if facts.encoding in ("utf-8", None) else f", encoding={facts.encoding!r}"
    errors = "" if facts.encoding_errors == "strict" else ", encoding_errors='replace'"
    if facts.format in ("CSV", "TSV"):
        delimiter = f", sep={facts.delimiter!r}" if facts.delimiter != "," else ""
        header = "" if facts.has_header else ", header=None"
        return f"pd.read_csv({name!r}{delimiter}{encoded}{errors}{header})"
    if facts.format == "JSON lines":
        return f"pd.read_json({name!r}, lines=True{encoded}{errors})"
    if facts.format == "JSON":
        return f"pd.read_json({name!r}{encoded}{errors})"
    return f"pd.read_parquet({name!r})" if facts.format == "Parquet" else f"pd.read_excel({name!r})"


def _errors(facts: Facts) -> str:
    return "" if facts.encoding_errors == "strict" else ", errors='replace'"
