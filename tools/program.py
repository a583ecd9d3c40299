# SPDX-License-Identifier: GPL-2.0-or-later
"""Import a tool, which is a program and so has no .py in its name."""

import importlib.machinery
import importlib.util
from pathlib import Path

TOOLS = Path(__file__).resolve().parent


def load(name):
    """Return tools/@name as a module."""
    module_name = name.replace('-', '_')
    loader = importlib.machinery.SourceFileLoader(module_name,
                                                  str(TOOLS / name))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(module_name, loader))
    loader.exec_module(module)
    return module
