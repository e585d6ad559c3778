#!/usr/bin/env python3
"""Runs the end-to-end tests: tests/e2e/test_*.py against the binaries in target/debug, or in --bin-dir.

    run.py [--bin-dir DIR] [NAME...]      NAME is `kill` or `test_kill.py`; none means all of them
"""
import argparse
import os
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin-dir", type=pathlib.Path, default=HERE.parent.parent / "target" / "debug")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()

    for variable, name in (("EMPATH_BIN", "empath"), ("EMPATHCTL_BIN", "empathctl")):
        binary = arguments.bin_dir.resolve() / name
        if not binary.is_file():
            sys.exit(f"{binary} does not exist: build it first, as `just test-e2e` does")
        os.environ[variable] = str(binary)

    sys.dont_write_bytecode = True
    sys.path.insert(0, str(HERE))
    files = [f"test_{n.removeprefix('test_').removesuffix('.py')}.py" for n in arguments.names]
    suite = unittest.TestSuite()
    for pattern in files or ["test_*.py"]:
        suite.addTests(unittest.defaultTestLoader.discover(str(HERE), pattern))
    if suite.countTestCases() == 0:
        sys.exit("there are no such tests")
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
