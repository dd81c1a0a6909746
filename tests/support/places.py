"""Where is the repository, and what of it do tests use?"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO_MODEL = ROOT / "demo_model" / "model"
