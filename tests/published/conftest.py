"""The page's modules lie beside it, and import each other as its kernel does."""

import sys

from lib.report.site import PUBLISHED

sys.path.insert(0, str(PUBLISHED.parent))
